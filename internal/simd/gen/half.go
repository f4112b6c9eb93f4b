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
	TEXT("unrotate"+t.name+"AVX2", NOSPLIT, "func(dst *float32, stride int, squares *float32, src *byte, cos, sin *float32, at *int32, n, half int)")
	Pragma("noescape")
	Doc("unrotate"+t.name+"AVX2 widens n rows of 2*half elements, turns the pairs (i, half+i) of row r back by row at[r] of the angles,",
		"rows of half, writes them to dst, rows of stride, and the sum of their squares to squares[r]. half is a multiple of 8.")
	dst, stride, squares := Load(Param("dst"), GP64()), Load(Param("stride"), GP64()), Load(Param("squares"), GP64())
	SHLQ(Imm(2), stride)
	ss, ss2, to := YMM(), YMM(), GP64()
	eachRow(t, func() {
		VXORPS(ss, ss, ss)
		VXORPS(ss2, ss2, ss2)
		MOVQ(dst, to)
	}, func(x turnedBack, half reg.Register) {
		VMOVUPS(x.a, Mem{Base: to})
		VMOVUPS(x.b, Mem{Base: to, Index: half, Scale: 4})
		VFMADD231PS(x.a, x.a, ss)
		VFMADD231PS(x.b, x.b, ss2)
		ADDQ(Imm(32), to)
	}, func() {
		VADDPS(ss, ss2, ss)
		VMOVSS(horizontal(ss), Mem{Base: squares})
		ADDQ(Imm(4), squares)
		ADDQ(stride, dst)
	})
}

// eachRow loops over rows of 16-bit elements, turned back: before and after each row, and for eight pairs of one.
func eachRow(t halfType, before func(), pairs func(x turnedBack, half reg.Register), after func()) {
	src, at, n, half := Load(Param("src"), GP64()), Load(Param("at"), GP64()), Load(Param("n"), GP64()), Load(Param("half"), GP64())
	cos, sin, k := GP64(), GP64(), GP64()
	x := newTurnedBack()
	Label("row")
	MOVLQSX(Mem{Base: at}, cos)
	ADDQ(Imm(4), at)
	IMULQ(half, cos)
	SHLQ(Imm(2), cos)
	MOVQ(cos, sin)
	addParam("cos", cos)
	addParam("sin", sin)
	before()
	MOVQ(half, k)
	Label("pairs")
	x.load(t, src, half, cos, sin)
	pairs(x, half)
	SUBQ(Imm(8), k)
	JNZ(LabelRef("pairs"))
	LEAQ(Mem{Base: src, Index: half, Scale: 2}, src) // behind the upper half
	after()
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
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

// addParam adds a parameter to x.
func addParam(name string, x reg.Register) {
	p, _ := Param(name).Resolve()
	ADDQ(p.Addr, x)
}

// broadcast fills x with a parameter.
func broadcast(name string, x reg.VecVirtual) {
	p, _ := Param(name).Resolve()
	VBROADCASTSS(p.Addr, x)
}

// horizontal is the sum of the eight lanes of x.
func horizontal(x reg.VecVirtual) reg.VecVirtual {
	h := XMM()
	VEXTRACTF128(U8(1), x, h)
	VADDPS(h, x.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	return h
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
	TEXT("unrotateDot"+t.name+"AVX2", NOSPLIT, "func(dst, direction *float32, src *byte, cos, sin *float32, at *int32, n, half int)")
	Pragma("noescape")
	Doc("unrotateDot"+t.name+"AVX2 widens n rows of 2*half elements, turns the pairs (i, half+i) of row r back by row at[r] of the angles,",
		"rows of half, and writes their dot products with direction to dst. half is a multiple of 8.")
	dst, direction := Load(Param("dst"), GP64()), Load(Param("direction"), GP64())
	low, high, along := YMM(), YMM(), GP64()
	eachRow(t, func() {
		VXORPS(low, low, low)
		VXORPS(high, high, high)
		MOVQ(direction, along)
	}, func(x turnedBack, half reg.Register) {
		VFMADD231PS(Mem{Base: along}, x.a, low)
		VFMADD231PS(Mem{Base: along, Index: half, Scale: 4}, x.b, high)
		ADDQ(Imm(32), along)
	}, func() {
		VADDPS(low, high, low)
		VMOVSS(horizontal(low), Mem{Base: dst})
		ADDQ(Imm(4), dst)
	})
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
