package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// width is a size of vector: 16 floats under AVX-512, 8 under AVX2.
type width struct {
	set    string
	floats int
}

var avx2, avx512 = width{"AVX2", 8}, width{"AVX512", 16}

func (w width) vector() reg.VecVirtual {
	if w == avx512 {
		return ZMM()
	}
	return YMM()
}

func (w width) several(n int) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = w.vector()
	}
	return v
}

func (w width) clear(v reg.VecVirtual) {
	if w == avx512 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
}

// load gives the arguments of these names, and multiplies by four those in floats, which become bytes.
func load(names []string, floats ...string) map[string]reg.GPVirtual {
	out := map[string]reg.GPVirtual{}
	for _, n := range names {
		r := GP64()
		Load(Param(n), r)
		out[n] = r
	}
	for _, n := range floats {
		SHLQ(Imm(2), out[n])
	}
	return out
}

// mul keeps a tile of the product in registers: rows of two vectors. Each step broadcasts one element of every row of a.
func mul(w width, height int) {
	name := map[width]string{avx512: "mul8x32AVX512", avx2: "mul4x16AVX2"}[w]
	TEXT(name, NOSPLIT, "func(c *float32, ldc int, a *float32, ra, ca int, b *float32, ldb, k, add int)")
	Pragma("noescape")
	Doc(name+" writes to a tile of c, or adds to it, the product of its rows of a, [rows, k], and its columns of b, [k, columns].", "Element (i, j) of a lies at i*ra+j*ca.")
	p := load([]string{"c", "ldc", "a", "ra", "ca", "b", "ldb", "k"}, "ldc", "ra", "ca", "ldb")
	ra3, ldc3 := GP64(), GP64()
	LEAQ(Mem{Base: p["ra"], Index: p["ra"], Scale: 2}, ra3)
	LEAQ(Mem{Base: p["ldc"], Index: p["ldc"], Scale: 2}, ldc3)
	starts := []reg.GPVirtual{p["a"]}
	for r := 4; r < height; r += 4 {
		next := GP64()
		LEAQ(Mem{Base: starts[len(starts)-1], Index: p["ra"], Scale: 4}, next)
		starts = append(starts, next)
	}
	acc := w.several(2 * height)
	for _, v := range acc {
		w.clear(v)
	}
	x, y := w.several(2), w.vector()
	Label("loop")
	TESTQ(p["k"], p["k"])
	JZ(LabelRef("done"))
	for i, v := range x {
		VMOVUPS(Mem{Base: p["b"], Disp: 4 * w.floats * i}, v)
	}
	for r := range height {
		VBROADCASTSS(rows(starts[r/4], p["ra"], ra3)[r%4], y)
		for i, v := range x {
			VFMADD231PS(v, y, acc[2*r+i])
		}
	}
	for _, s := range starts {
		ADDQ(p["ca"], s)
	}
	ADDQ(p["ldb"], p["b"])
	DECQ(p["k"])
	JMP(LabelRef("loop"))
	Label("done")
	add := Load(Param("add"), GP64())
	TESTQ(add, add)
	JZ(LabelRef("write"))
	finish(w, p["c"], p["ldc"], ldc3, acc, true)
	Label("write")
	finish(w, p["c"], p["ldc"], ldc3, acc, false)
}

// finish writes the tile, or adds it.
func finish(w width, c, ldc, ldc3 reg.Register, acc []reg.VecVirtual, add bool) {
	height := len(acc) / 2
	for r := range height {
		m := rows(c, ldc, ldc3)[r%4]
		for i := range 2 {
			m.Disp = 4 * w.floats * i
			if add {
				VADDPS(m, acc[2*r+i], acc[2*r+i])
			}
			VMOVUPS(acc[2*r+i], m)
		}
		if r%4 == 3 && r+1 < height {
			LEAQ(Mem{Base: c, Index: ldc, Scale: 4}, c)
		}
	}
	VZEROUPPER()
	RET()
}

// maxRows takes the largest of each column.
func maxRows(w width) {
	name := "maxRows" + w.set
	TEXT(name, NOSPLIT, "func(top, x *float32, ld, n int)")
	Pragma("noescape")
	Doc(name + " raises the two vectors at top to the largest of their columns in x, n rows of ld.")
	p := load([]string{"top", "x", "ld", "n"}, "ld")
	top := w.several(2)
	at := func(base reg.Register, i int) Mem { return Mem{Base: base, Disp: 4 * w.floats * i} }
	for i, v := range top {
		VMOVUPS(at(p["top"], i), v)
	}
	Label("loop")
	TESTQ(p["n"], p["n"])
	JZ(LabelRef("done"))
	for i, v := range top {
		VMAXPS(at(p["x"], i), v, v)
	}
	ADDQ(p["ld"], p["x"])
	DECQ(p["n"])
	JMP(LabelRef("loop"))
	Label("done")
	for i, v := range top {
		VMOVUPS(v, at(p["top"], i))
	}
	VZEROUPPER()
	RET()
}

// expRows is the exponential by range reduction: e^y = 2^k e^r with k the nearest whole number to y/ln 2, and e^r, for r within
// half of ln 2, by its series to the sixth power. Series of several vectors run side by side.
func expRows(w width, several int) {
	name := "expRows" + w.set
	TEXT(name, NOSPLIT, "func(x *float32, ld int, top, sum, squares *float32, n int)")
	Pragma("noescape")
	Doc(name + " replaces x, n rows of ld, by exp(x-top), column by column, and adds them to sum and their squares to squares.")
	word := func(name string, v float64) Mem { return constant(name, math.Float32bits(float32(v))) }
	p := load([]string{"x", "ld", "top", "sum", "squares", "n"}, "ld")
	at := func(base reg.Register, i int) Mem { return Mem{Base: base, Disp: 4 * w.floats * i} }
	fixed := func(m Mem) reg.VecVirtual {
		v := w.vector()
		VBROADCASTSS(m, v)
		return v
	}
	log2e, ln2hi, ln2lo := fixed(word("log2e", math.Log2E)), fixed(word("ln2hi", 0.693359375)), fixed(word("ln2lo", -2.12194440e-4))
	e6, one := fixed(word("e6", 1.0/720)), fixed(word("e0", 1))
	var series []reg.VecVirtual
	for _, m := range []Mem{word("e5", 1.0/120), word("e4", 1.0/24), word("e3", 1.0/6), word("e2", 0.5)} {
		series = append(series, fixed(m))
	}
	series = append(series, one, one)
	top, sum, squares := w.several(several), w.several(several), w.several(several)
	y, k, e := w.several(several), w.several(several), w.several(several)
	for i := range several {
		VMOVUPS(at(p["top"], i), top[i])
		VMOVUPS(at(p["sum"], i), sum[i])
		VMOVUPS(at(p["squares"], i), squares[i])
	}
	Label("loop")
	TESTQ(p["n"], p["n"])
	JZ(LabelRef("done"))
	each := func(body func(i int)) {
		for i := range several {
			body(i)
		}
	}
	each(func(i int) { VMOVUPS(at(p["x"], i), y[i]) })
	each(func(i int) { VSUBPS(top[i], y[i], y[i]) })
	each(func(i int) { VBROADCASTSS(word("rowLeast", -40), e[i]) })
	each(func(i int) { VMAXPS(e[i], y[i], y[i]) })
	each(func(i int) { VMULPS(log2e, y[i], k[i]) })
	each(func(i int) {
		if w == avx512 {
			VRNDSCALEPS(U8(0), k[i], k[i])
		} else {
			VROUNDPS(U8(0), k[i], k[i])
		}
	})
	each(func(i int) { VFNMADD231PS(ln2hi, k[i], y[i]) })
	each(func(i int) { VFNMADD231PS(ln2lo, k[i], y[i]) })
	each(func(i int) { VMOVAPS(e6, e[i]) })
	for _, c := range series {
		each(func(i int) { VFMADD213PS(c, y[i], e[i]) }) // e = e*y + c
	}
	each(func(i int) { VCVTPS2DQ(k[i], k[i]) })
	each(func(i int) { VPSLLD(Imm(23), k[i], k[i]) })
	each(func(i int) { VPADDD(k[i], e[i], e[i]) })
	each(func(i int) { VMOVUPS(e[i], at(p["x"], i)) })
	each(func(i int) { VADDPS(e[i], sum[i], sum[i]) })
	each(func(i int) { VFMADD231PS(e[i], e[i], squares[i]) })
	ADDQ(p["ld"], p["x"])
	DECQ(p["n"])
	JMP(LabelRef("loop"))
	Label("done")
	for i := range several {
		VMOVUPS(sum[i], at(p["sum"], i))
		VMOVUPS(squares[i], at(p["squares"], i))
	}
	VZEROUPPER()
	RET()
}

// rowDots takes four rows at a time.
func rowDots() {
	TEXT("rowDotsAVX512", NOSPLIT, "func(dst, x *float32, sx int, y *float32, sy, blocks, d int)")
	Pragma("noescape")
	Doc("rowDotsAVX512 writes to dst the dot products of rows of x and rows of y, 4*blocks of them, d floats long, a multiple of 16.",
		"Rows are sx and sy floats apart.")
	p := load([]string{"dst", "x", "sx", "y", "sy", "blocks", "d"}, "sx", "sy", "d")
	rx := []reg.GPVirtual{p["x"], GP64(), GP64(), GP64()}
	acc := avx512.several(4)
	v, t := ZMM(), ZMM()
	k, y := GP64(), GP64()
	Label("block")
	TESTQ(p["blocks"], p["blocks"])
	JZ(LabelRef("done"))
	for i := 1; i < 4; i++ {
		LEAQ(Mem{Base: rx[i-1], Index: p["sx"], Scale: 1}, rx[i])
	}
	for _, a := range acc {
		VPXORD(a, a, a)
	}
	XORQ(k, k)
	Label("inner")
	LEAQ(Mem{Base: p["y"], Index: k, Scale: 1}, y)
	for i := range acc {
		VMOVUPS(Mem{Base: rx[i], Index: k, Scale: 1}, v)
		VFMADD231PS(Mem{Base: y}, v, acc[i])
		if i < 3 {
			ADDQ(p["sy"], y)
		}
	}
	ADDQ(Imm(64), k)
	CMPQ(k, p["d"])
	JL(LabelRef("inner"))
	for i := 0; i < 4; i += 2 {
		VUNPCKLPS(acc[i+1], acc[i], t)
		VUNPCKHPS(acc[i+1], acc[i], acc[i])
		VADDPS(t, acc[i], acc[i])
	}
	VUNPCKLPD(acc[2], acc[0], t)
	VUNPCKHPD(acc[2], acc[0], acc[0])
	VADDPS(t, acc[0], acc[0])
	half, quarter := YMM(), XMM()
	VEXTRACTF64X4(U8(1), acc[0], half)
	VADDPS(half, acc[0].AsY(), half)
	VEXTRACTF128(U8(1), half, quarter)
	VADDPS(quarter, half.AsX(), quarter)
	VMOVUPS(quarter, Mem{Base: p["dst"]})
	ADDQ(Imm(16), p["dst"])
	LEAQ(Mem{Base: rx[3], Index: p["sx"], Scale: 1}, p["x"])
	LEAQ(Mem{Base: p["y"], Index: p["sy"], Scale: 4}, p["y"])
	DECQ(p["blocks"])
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}
