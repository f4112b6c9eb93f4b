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
	ss, ss2 := YMM(), YMM()
	VXORPS(ss, ss, ss)
	VXORPS(ss2, ss2, ss2)
	x := newTurnedBack()
	Label("loop")
	x.load(t, src, half, cos, sin)
	VMOVUPS(x.a, Mem{Base: dst})
	VMOVUPS(x.b, Mem{Base: dst, Index: half, Scale: 4})
	VFMADD231PS(x.a, x.a, ss)
	VFMADD231PS(x.b, x.b, ss2)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VADDPS(ss, ss2, ss)
	horizontal(ss)
}

// turnedBack loads eight pairs of a row and leaves them in a and b, turned back by the angles given.
type turnedBack struct{ u, v, c, s, a, b reg.VecVirtual }

func newTurnedBack() turnedBack { return turnedBack{YMM(), YMM(), YMM(), YMM(), YMM(), YMM()} }

func (x turnedBack) load(t halfType, src, half, cos, sin reg.Register) {
	t.load(Mem{Base: src}, x.u)
	t.load(Mem{Base: src, Index: half, Scale: 2}, x.v)
	VMOVUPS(Mem{Base: cos}, x.c)
	VMOVUPS(Mem{Base: sin}, x.s)
	VMULPS(x.u, x.c, x.a)
	VFMADD231PS(x.v, x.s, x.a)
	VMULPS(x.v, x.c, x.b)
	VFNMADD231PS(x.u, x.s, x.b)
	ADDQ(Imm(16), src)
	ADDQ(Imm(32), cos)
	ADDQ(Imm(32), sin)
}

// broadcast fills x with a parameter.
func broadcast(name string, x reg.VecVirtual) {
	p, _ := Param(name).Resolve()
	VBROADCASTSS(p.Addr, x)
}

// horizontal adds up the eight lanes of x and returns them.
func horizontal(x reg.VecVirtual) {
	h := XMM()
	VEXTRACTF128(U8(1), x, h)
	VADDPS(h, x.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func unrotateAddHalf(t halfType) {
	TEXT("unrotateAdd"+t.name+"AVX2", NOSPLIT, "func(key, unit *float32, src *byte, cos, sin *float32, kw, uw float32, half int)")
	Pragma("noescape")
	Doc("unrotateAdd"+t.name+"AVX2 widens a row of 2*half elements, turns its pairs (i, half+i) back and adds it, times kw, to key",
		"and, times uw, to unit. half is a multiple of 8.")
	key, unit, src := Load(Param("key"), GP64()), Load(Param("unit"), GP64()), Load(Param("src"), GP64())
	cos, sin := Load(Param("cos"), GP64()), Load(Param("sin"), GP64())
	kw, uw, y := YMM(), YMM(), YMM()
	broadcast("kw", kw)
	broadcast("uw", uw)
	half := Load(Param("half"), GP64())
	n := GP64()
	MOVQ(half, n)
	x := newTurnedBack()
	Label("loop")
	x.load(t, src, half, cos, sin)
	for _, to := range []struct {
		sum reg.Register
		w   reg.VecVirtual
	}{{key, kw}, {unit, uw}} {
		VMOVUPS(Mem{Base: to.sum}, y)
		VFMADD231PS(x.a, to.w, y)
		VMOVUPS(y, Mem{Base: to.sum})
		VMOVUPS(Mem{Base: to.sum, Index: half, Scale: 4}, y)
		VFMADD231PS(x.b, to.w, y)
		VMOVUPS(y, Mem{Base: to.sum, Index: half, Scale: 4})
		ADDQ(Imm(32), to.sum)
	}
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func unrotateDotHalf(t halfType) {
	TEXT("unrotateDot"+t.name+"AVX2", NOSPLIT, "func(direction *float32, src *byte, cos, sin *float32, half int) float32")
	Pragma("noescape")
	Doc("unrotateDot"+t.name+"AVX2 widens a row of 2*half elements, turns its pairs (i, half+i) back and returns its dot product with",
		"direction. half is a multiple of 8.")
	direction, src := Load(Param("direction"), GP64()), Load(Param("src"), GP64())
	cos, sin := Load(Param("cos"), GP64()), Load(Param("sin"), GP64())
	half := Load(Param("half"), GP64())
	n := GP64()
	MOVQ(half, n)
	low, high := YMM(), YMM()
	VXORPS(low, low, low)
	VXORPS(high, high, high)
	x := newTurnedBack()
	Label("loop")
	x.load(t, src, half, cos, sin)
	VFMADD231PS(Mem{Base: direction}, x.a, low)
	VFMADD231PS(Mem{Base: direction, Index: half, Scale: 4}, x.b, high)
	ADDQ(Imm(32), direction)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VADDPS(low, high, low)
	horizontal(low)
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
