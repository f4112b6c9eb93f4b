package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func dot() {
	TEXT("dotAVX2", NOSPLIT, "func(a, b *float32, n int) float32")
	Pragma("noescape")
	Doc("dotAVX2 is the dot product of n floats, a multiple of 8.")
	a, b, n := Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("n"), GP64())
	x := []reg.VecVirtual{YMM(), YMM()}
	for _, v := range x {
		VXORPS(v, v, v)
	}
	t := YMM()
	Label("pair")
	CMPQ(n, Imm(16))
	JL(LabelRef("one"))
	for i, v := range x {
		VMOVUPS(Mem{Base: a, Disp: 32 * i}, t)
		VFMADD231PS(Mem{Base: b, Disp: 32 * i}, t, v)
	}
	ADDQ(Imm(64), a)
	ADDQ(Imm(64), b)
	SUBQ(Imm(16), n)
	JMP(LabelRef("pair"))
	Label("one")
	TESTQ(n, n)
	JZ(LabelRef("sum"))
	VMOVUPS(Mem{Base: a}, t)
	VFMADD231PS(Mem{Base: b}, t, x[0])
	Label("sum")
	VADDPS(x[0], x[1], x[0])
	h := XMM()
	VEXTRACTF128(U8(1), x[0], h)
	VADDPS(h, x[0].AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// each loops over n floats, a multiple of 8.
func each(n reg.Register, body func(), pointers ...reg.Register) {
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body()
	for _, p := range pointers {
		ADDQ(Imm(32), p)
	}
	SUBQ(Imm(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

func axpy() {
	TEXT("axpyAVX2", NOSPLIT, "func(dst, src *float32, w float32, n int)")
	Pragma("noescape")
	Doc("axpyAVX2 adds w*src to dst, n floats, a multiple of 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	w, t := YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	n := Load(Param("n"), GP64())
	each(n, func() {
		VMOVUPS(Mem{Base: dst}, t)
		VFMADD231PS(Mem{Base: src}, w, t)
		VMOVUPS(t, Mem{Base: dst})
	}, dst, src)
}

func axpy4() {
	TEXT("axpy4AVX2", NOSPLIT, "func(dst, rows *float32, stride int, w *float32, n int)")
	Pragma("noescape")
	Doc("axpy4AVX2 adds to dst four rows of n floats, a multiple of 8, each times its weight.")
	dst, row := Load(Param("dst"), GP64()), Load(Param("rows"), GP64())
	stride, weights, n := Load(Param("stride"), GP64()), Load(Param("w"), GP64()), Load(Param("n"), GP64())
	SHLQ(Imm(2), stride)
	stride3 := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	w := []reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	for i := range w {
		VBROADCASTSS(Mem{Base: weights, Disp: 4 * i}, w[i])
	}
	y := YMM()
	each(n, func() {
		VMOVUPS(Mem{Base: dst}, y)
		for i, m := range rows(row, stride, stride3) {
			VFMADD231PS(m, w[i], y)
		}
		VMOVUPS(y, Mem{Base: dst})
	}, dst, row)
}

func scale() {
	TEXT("scaleAVX2", NOSPLIT, "func(x *float32, w float32, n int)")
	Pragma("noescape")
	Doc("scaleAVX2 multiplies n floats, a multiple of 8, by w.")
	x := Load(Param("x"), GP64())
	w, t := YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	n := Load(Param("n"), GP64())
	each(n, func() {
		VMULPS(Mem{Base: x}, w, t)
		VMOVUPS(t, Mem{Base: x})
	}, x)
}

func rotate() {
	TEXT("unrotateAVX2", NOSPLIT, "func(lo, hi, cos, sin *float32, n int)")
	Pragma("noescape")
	Doc("unrotateAVX2 turns n pairs (lo, hi), a multiple of 8, back by the angles given.")
	lo, hi := Load(Param("lo"), GP64()), Load(Param("hi"), GP64())
	cos, sin := Load(Param("cos"), GP64()), Load(Param("sin"), GP64())
	n := Load(Param("n"), GP64())
	u, v, c, s, a, b := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	each(n, func() {
		VMOVUPS(Mem{Base: lo}, u)
		VMOVUPS(Mem{Base: hi}, v)
		VMOVUPS(Mem{Base: cos}, c)
		VMOVUPS(Mem{Base: sin}, s)
		VMULPS(u, c, a)
		VFMADD231PS(v, s, a)
		VMULPS(v, c, b)
		VFNMADD231PS(u, s, b)
		VMOVUPS(a, Mem{Base: lo})
		VMOVUPS(b, Mem{Base: hi})
	}, lo, hi, cos, sin)
}

func scaleAdd() {
	TEXT("scaleAddAVX2", NOSPLIT, "func(x *float32, stride int, sum, w *float32, n, d int)")
	Pragma("noescape")
	Doc("scaleAddAVX2 multiplies row r of x, d floats, a multiple of 8, by w[r] and adds the products to sum. There are n rows.")
	x, stride, sum := Load(Param("x"), GP64()), Load(Param("stride"), GP64()), Load(Param("sum"), GP64())
	w, n, d := Load(Param("w"), GP64()), Load(Param("n"), GP64()), Load(Param("d"), GP64())
	SHLQ(Imm(2), stride)
	SHLQ(Imm(2), d)
	by, v, s, k := YMM(), YMM(), YMM(), GP64()
	Label("row")
	VBROADCASTSS(Mem{Base: w}, by)
	ADDQ(Imm(4), w)
	XORQ(k, k)
	Label("loop")
	VMULPS(Mem{Base: x, Index: k, Scale: 1}, by, v)
	VADDPS(Mem{Base: sum, Index: k, Scale: 1}, v, s)
	VMOVUPS(v, Mem{Base: x, Index: k, Scale: 1})
	VMOVUPS(s, Mem{Base: sum, Index: k, Scale: 1})
	ADDQ(Imm(32), k)
	CMPQ(k, d)
	JL(LabelRef("loop"))
	ADDQ(stride, x)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func axpy2() {
	TEXT("axpy2AVX2", NOSPLIT, "func(dst, sum, src *float32, w, v float32, n int)")
	Pragma("noescape")
	Doc("axpy2AVX2 adds w*src to dst and v*src to sum, n floats, a multiple of 8.")
	dst, sum, src := Load(Param("dst"), GP64()), Load(Param("sum"), GP64()), Load(Param("src"), GP64())
	w, v, x, y, z := YMM(), YMM(), YMM(), YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	p, _ = Param("v").Resolve()
	VBROADCASTSS(p.Addr, v)
	n := Load(Param("n"), GP64())
	each(n, func() {
		VMOVUPS(Mem{Base: src}, x)
		VMOVUPS(Mem{Base: dst}, y)
		VMOVUPS(Mem{Base: sum}, z)
		VFMADD231PS(x, w, y)
		VFMADD231PS(x, v, z)
		VMOVUPS(y, Mem{Base: dst})
		VMOVUPS(z, Mem{Base: sum})
	}, dst, sum, src)
}

// rotateBy turns a merged key to its fractional position: the table's angle plus delta*freq, whose sine and cosine are
// their series (delta is at most a half and no frequency exceeds one).
func rotateBy() {
	TEXT("rotateByAVX2", NOSPLIT, "func(lo, hi, cos, sin, freq *float32, delta, scale float32, n int)")
	Pragma("noescape")
	Doc("rotateByAVX2 turns n pairs (lo, hi), a multiple of 8, by the angles of (cos, sin) plus delta*freq and multiplies them by scale.")
	lo, hi := Load(Param("lo"), GP64()), Load(Param("hi"), GP64())
	cos, sin := Load(Param("cos"), GP64()), Load(Param("sin"), GP64())
	freq := Load(Param("freq"), GP64())
	delta, scale := YMM(), YMM()
	p, _ := Param("delta").Resolve()
	VBROADCASTSS(p.Addr, delta)
	p, _ = Param("scale").Resolve()
	VBROADCASTSS(p.Addr, scale)
	n := Load(Param("n"), GP64())
	x, y, s, c, t, a, b, u, v := YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	series := func(dst reg.VecVirtual, coefficients ...string) {
		VBROADCASTSS(constants[coefficients[0]], dst)
		for _, name := range coefficients[1:] {
			VBROADCASTSS(constants[name], t)
			VFMADD213PS(t, y, dst) // dst = dst*y + t
		}
	}
	for _, f := range floats {
		constant(f.name, math.Float32bits(f.value))
	}
	each(n, func() {
		VMULPS(Mem{Base: freq}, delta, x)
		VMULPS(x, x, y)
		series(s, "s7", "s5", "s3", "one")
		VMULPS(x, s, s)
		series(c, "c8", "c6", "c4", "c2", "one")
		VMOVUPS(Mem{Base: cos}, a)
		VMOVUPS(Mem{Base: sin}, b)
		VMULPS(a, c, u) // cos of the whole angle
		VFNMADD231PS(b, s, u)
		VMULPS(b, c, v) // its sine
		VFMADD231PS(a, s, v)
		VMULPS(u, scale, u)
		VMULPS(v, scale, v)
		VMOVUPS(Mem{Base: lo}, a)
		VMOVUPS(Mem{Base: hi}, b)
		VMULPS(a, u, x)
		VFNMADD231PS(b, v, x)
		VMULPS(b, u, y)
		VFMADD231PS(a, v, y)
		VMOVUPS(x, Mem{Base: lo})
		VMOVUPS(y, Mem{Base: hi})
	}, lo, hi, cos, sin, freq)
}

// floats are the coefficients of the series of sine and cosine.
var floats = []struct {
	name  string
	value float32
}{
	{"one", 1}, {"s3", -1.0 / 6}, {"s5", 1.0 / 120}, {"s7", -1.0 / 5040},
	{"c2", -0.5}, {"c4", 1.0 / 24}, {"c6", -1.0 / 720}, {"c8", 1.0 / 40320},
}
