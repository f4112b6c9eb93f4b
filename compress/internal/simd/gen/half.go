package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// halfType is a 16-bit float: how eight of them are loaded and stored.
type halfType struct {
	name  string
	load  func(src Mem, dst reg.VecVirtual)
	store func(src reg.VecVirtual, dst Mem)
}

var bf16 = halfType{"BF16",
	func(src Mem, dst reg.VecVirtual) {
		VPMOVZXWD(src, dst)
		VPSLLD(Imm(16), dst, dst)
	},
	func(src reg.VecVirtual, dst Mem) {
		// Round to nearest even: add 0x7fff and the last bit that stays. Finite values saturate.
		limit, odd := YMM(), YMM()
		VBROADCASTSS(constant("bf16max", 0x7f7f0000), limit)
		VMINPS(limit, src, src)
		VBROADCASTSS(constant("bf16min", 0xff7f0000), limit)
		VMAXPS(limit, src, src)
		VPSRLD(Imm(16), src, odd)
		VPSLLD(Imm(31), odd, odd)
		VPSRLD(Imm(31), odd, odd)
		VPADDD(odd, src, src)
		VPBROADCASTD(constant("bf16half", 0x7fff), odd)
		VPADDD(odd, src, src)
		VPSRLD(Imm(16), src, src)
		VEXTRACTI128(Imm(1), src, odd.AsX())
		VPACKUSDW(odd.AsX(), src.AsX(), src.AsX())
		VMOVDQU(src.AsX(), dst)
	}}

var f16 = halfType{"F16",
	func(src Mem, dst reg.VecVirtual) { VCVTPH2PS(src, dst) },
	func(src reg.VecVirtual, dst Mem) {
		limit := YMM()
		VBROADCASTSS(constant("f16max", 0x477fe000), limit)
		VMINPS(limit, src, src)
		VBROADCASTSS(constant("f16min", 0xc77fe000), limit)
		VMAXPS(limit, src, src)
		VCVTPS2PH(Imm(0), src, dst)
	}}

var constants = map[string]Mem{}

// constant is a 32-bit word in read-only data.
func constant(name string, bits uint32) Mem {
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	DATA(0, U32(bits))
	constants[name] = m
	return m
}

func widen(t halfType) {
	TEXT("widen"+t.name+"AVX2", NOSPLIT, "func(dst *float32, src *byte, n int)")
	Pragma("noescape")
	Doc("widen" + t.name + "AVX2 widens n elements, a multiple of 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	n := Load(Param("n"), GP64())
	x := YMM()
	each(n, func() {
		t.load(Mem{Base: src}, x)
		VMOVUPS(x, Mem{Base: dst})
		ADDQ(Imm(16), src)
	}, dst)
}

func narrow(t halfType) {
	TEXT("narrow"+t.name+"AVX2", NOSPLIT, "func(dst *byte, src *float32, n int)")
	Pragma("noescape")
	Doc("narrow" + t.name + "AVX2 rounds n floats, a multiple of 8, to nearest even; beyond the largest finite value it saturates.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	n := Load(Param("n"), GP64())
	x := YMM()
	each(n, func() {
		VMOVUPS(Mem{Base: src}, x)
		t.store(x, Mem{Base: dst})
		ADDQ(Imm(16), dst)
	}, src)
}

func unrotateHalf(t halfType) {
	TEXT("unrotate"+t.name+"AVX2", NOSPLIT, "func(dst *float32, src *byte, cos, sin *float32, half int) float32")
	Pragma("noescape")
	Doc("unrotate"+t.name+"AVX2 widens a row of 2*half elements, turns its pairs (i, half+i) back and returns the sum of",
		"their squares. half is a multiple of 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	cos, sin := Load(Param("cos"), GP64()), Load(Param("sin"), GP64())
	half := Load(Param("half"), GP64())
	n := GP64()
	MOVQ(half, n)
	u, v, c, s, a, b, ss, ss2 := YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	VXORPS(ss, ss, ss)
	VXORPS(ss2, ss2, ss2)
	Label("loop")
	t.load(Mem{Base: src}, u)
	t.load(Mem{Base: src, Index: half, Scale: 2}, v)
	VMOVUPS(Mem{Base: cos}, c)
	VMOVUPS(Mem{Base: sin}, s)
	VMULPS(u, c, a)
	VFMADD231PS(v, s, a)
	VMULPS(v, c, b)
	VFNMADD231PS(u, s, b)
	VMOVUPS(a, Mem{Base: dst})
	VMOVUPS(b, Mem{Base: dst, Index: half, Scale: 4})
	VFMADD231PS(a, a, ss)
	VFMADD231PS(b, b, ss2)
	ADDQ(Imm(16), src)
	ADDQ(Imm(32), cos)
	ADDQ(Imm(32), sin)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VADDPS(ss, ss2, ss)
	h := XMM()
	VEXTRACTF128(U8(1), ss, h)
	VADDPS(h, ss.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func axpyHalf(t halfType) {
	TEXT("axpy"+t.name+"AVX2", NOSPLIT, "func(dst *float32, src *byte, w float32, n int)")
	Pragma("noescape")
	Doc("axpy" + t.name + "AVX2 adds w*src to dst, n elements, a multiple of 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	w, x, y := YMM(), YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	n := Load(Param("n"), GP64())
	each(n, func() {
		t.load(Mem{Base: src}, x)
		VMOVUPS(Mem{Base: dst}, y)
		VFMADD231PS(x, w, y)
		VMOVUPS(y, Mem{Base: dst})
		ADDQ(Imm(16), src)
	}, dst)
}
