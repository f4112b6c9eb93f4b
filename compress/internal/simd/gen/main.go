// Command gen writes the amd64 kernels. Run it with go generate from the package above; it has a module of its own so that
// the service does not depend on the assembler library.
package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!purego")
	gram4AVX512()
	gram2AVX2()
	dot()
	axpy()
	scale()
	rotate()
	for _, t := range []halfType{bf16, f16} {
		widen(t)
		narrow(t)
		unrotateHalf(t)
		axpyHalf(t)
	}
	scaleAdd()
	axpy2()
	rotateBy()
	Generate()
}

// gram4AVX512 adds the dot products of 4 rows of a with 4*blocks rows of b to s. Sixteen sums live in Z0-Z15.
func gram4AVX512() {
	TEXT("gram4AVX512", NOSPLIT, "func(s *float32, ld int, a, b *float32, blocks, stride int)")
	Pragma("noescape")
	Doc("gram4AVX512 adds to s[r*ld+j] the dot product of row r of a (4 rows) and row j of b (4*blocks rows).",
		"Rows are stride floats long, a multiple of 16.")
	s, ld := Load(Param("s"), GP64()), Load(Param("ld"), GP64())
	a, b := Load(Param("a"), GP64()), Load(Param("b"), GP64())
	blocks, stride := Load(Param("blocks"), GP64()), Load(Param("stride"), GP64())
	SHLQ(Imm(2), ld)
	SHLQ(Imm(2), stride)
	stride3 := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	k, pa, pb, ps := GP64(), GP64(), GP64(), GP64()
	acc := make([]reg.VecVirtual, 16)
	for i := range acc {
		acc[i] = ZMM()
	}
	ra := []reg.VecVirtual{ZMM(), ZMM(), ZMM(), ZMM()}
	rb := ZMM()

	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	for _, x := range acc {
		VPXORD(x, x, x)
	}
	MOVQ(a, pa)
	MOVQ(b, pb)
	MOVQ(stride, k)
	Label("inner")
	for r, m := range rows(pa, stride, stride3) {
		VMOVUPS(m, ra[r])
	}
	for j, m := range rows(pb, stride, stride3) {
		VMOVUPS(m, rb)
		for r := range 4 {
			VFMADD231PS(ra[r], rb, acc[4*r+j])
		}
	}
	ADDQ(Imm(64), pa)
	ADDQ(Imm(64), pb)
	SUBQ(Imm(64), k)
	JNZ(LabelRef("inner"))

	// Sixteen vectors of sixteen partial sums become one vector of sixteen sums, row by row.
	t := ZMM()
	y := make([]reg.VecVirtual, 4)
	for r := range 4 {
		x := acc[4*r : 4*r+4]
		for p := 0; p < 4; p += 2 {
			VUNPCKLPS(x[p+1], x[p], t)
			VUNPCKHPS(x[p+1], x[p], x[p])
			VADDPS(t, x[p], x[p])
		}
		VUNPCKLPD(x[2], x[0], t)
		VUNPCKHPD(x[2], x[0], x[0])
		VADDPS(t, x[0], x[0])
		y[r] = x[0]
	}
	for p := 0; p < 4; p += 2 {
		VSHUFF32X4(U8(0x88), y[p+1], y[p], t)
		VSHUFF32X4(U8(0xdd), y[p+1], y[p], y[p])
		VADDPS(t, y[p], y[p])
	}
	VSHUFF32X4(U8(0x88), y[2], y[0], t)
	VSHUFF32X4(U8(0xdd), y[2], y[0], y[0])
	VADDPS(t, y[0], y[0])

	MOVQ(s, ps)
	for r := range 4 {
		x := XMM()
		if r == 0 {
			VADDPS(Mem{Base: ps}, y[0].AsX(), x)
		} else {
			VEXTRACTF32X4(U8(r), y[0], x)
			VADDPS(Mem{Base: ps}, x, x)
		}
		VMOVUPS(x, Mem{Base: ps})
		if r < 3 {
			ADDQ(ld, ps)
		}
	}
	ADDQ(Imm(16), s)
	LEAQ(Mem{Base: b, Index: stride, Scale: 4}, b)
	DECQ(blocks)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// rows are the operands of four rows that start at p.
func rows(p, stride, stride3 reg.Register) []Mem {
	return []Mem{{Base: p}, {Base: p, Index: stride, Scale: 1}, {Base: p, Index: stride, Scale: 2}, {Base: p, Index: stride3, Scale: 1}}
}

// gram2AVX2 does two rows of a against four of b with eight sums in registers.
func gram2AVX2() {
	TEXT("gram2AVX2", NOSPLIT, "func(s *float32, ld int, a, b *float32, blocks, stride int)")
	Pragma("noescape")
	Doc("gram2AVX2 adds to s[r*ld+j] the dot product of row r of a (2 rows) and row j of b (4*blocks rows).",
		"Rows are stride floats long, a multiple of 8.")
	s, ld := Load(Param("s"), GP64()), Load(Param("ld"), GP64())
	a, b := Load(Param("a"), GP64()), Load(Param("b"), GP64())
	blocks, stride := Load(Param("blocks"), GP64()), Load(Param("stride"), GP64())
	SHLQ(Imm(2), stride)
	stride3 := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	k, pa, pb := GP64(), GP64(), GP64()
	acc := make([]reg.VecVirtual, 8)
	for i := range acc {
		acc[i] = YMM()
	}
	ra := []reg.VecVirtual{YMM(), YMM()}
	rb := YMM()

	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	for _, x := range acc {
		VXORPS(x, x, x)
	}
	MOVQ(a, pa)
	MOVQ(b, pb)
	MOVQ(stride, k)
	Label("inner")
	VMOVUPS(Mem{Base: pa}, ra[0])
	VMOVUPS(Mem{Base: pa, Index: stride, Scale: 1}, ra[1])
	for j, m := range rows(pb, stride, stride3) {
		VMOVUPS(m, rb)
		for r := range 2 {
			VFMADD231PS(ra[r], rb, acc[4*r+j])
		}
	}
	ADDQ(Imm(32), pa)
	ADDQ(Imm(32), pb)
	SUBQ(Imm(32), k)
	JNZ(LabelRef("inner"))

	t := YMM()
	for r := range 2 {
		x := acc[4*r : 4*r+4]
		for p := 0; p < 4; p += 2 {
			VHADDPS(x[p+1], x[p], x[p])
		}
		VHADDPS(x[2], x[0], x[0])
	}
	VPERM2F128(U8(0x20), acc[4], acc[0], t)
	VPERM2F128(U8(0x31), acc[4], acc[0], acc[0])
	VADDPS(t, acc[0], acc[0])
	x := XMM()
	VADDPS(Mem{Base: s}, acc[0].AsX(), x)
	VMOVUPS(x, Mem{Base: s})
	VEXTRACTF128(U8(1), acc[0], x)
	VADDPS(Mem{Base: s, Index: ld, Scale: 4}, x, x)
	VMOVUPS(x, Mem{Base: s, Index: ld, Scale: 4})
	ADDQ(Imm(16), s)
	LEAQ(Mem{Base: b, Index: stride, Scale: 4}, b)
	DECQ(blocks)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

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

func scaleAdd() {
	TEXT("scaleAddAVX2", NOSPLIT, "func(x, sum *float32, w float32, n int)")
	Pragma("noescape")
	Doc("scaleAddAVX2 multiplies n floats, a multiple of 8, by w and adds them to sum.")
	x, sum := Load(Param("x"), GP64()), Load(Param("sum"), GP64())
	w, a := YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	n := Load(Param("n"), GP64())
	each(n, func() {
		VMULPS(Mem{Base: x}, w, a)
		VMOVUPS(a, Mem{Base: x})
		VADDPS(Mem{Base: sum}, a, a)
		VMOVUPS(a, Mem{Base: sum})
	}, x, sum)
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
