package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// expSum is the exponential by range reduction: e^y = 2^k e^r with k the nearest whole number to y/ln 2, and e^r, for r within
// half of ln 2, by its series to the sixth power.
func expSum() {
	TEXT("expSumAVX2", NOSPLIT, "func(x *float32, top float32, n int) float32")
	Pragma("noescape")
	Doc("expSumAVX2 replaces n floats, a multiple of 8 and at most top, by exp(x-top) and returns their sum.")
	word := func(name string, v float64) Mem { return constant(name, math.Float32bits(float32(v))) }
	x := Load(Param("x"), GP64())
	top, least, log2e, ln2hi, ln2lo := YMM(), YMM(), YMM(), YMM(), YMM()
	p, _ := Param("top").Resolve()
	VBROADCASTSS(p.Addr, top)
	n := Load(Param("n"), GP64())
	VBROADCASTSS(word("expLeast", -87), least)
	VBROADCASTSS(word("log2e", math.Log2E), log2e)
	VBROADCASTSS(word("ln2hi", 0.693359375), ln2hi) // short, so that k times it is exact
	VBROADCASTSS(word("ln2lo", -2.12194440e-4), ln2lo)
	sum, y, k, e, t := YMM(), YMM(), YMM(), YMM(), YMM()
	VXORPS(sum, sum, sum)
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	VMOVUPS(Mem{Base: x}, y)
	VSUBPS(top, y, y)
	VMAXPS(least, y, y)
	VMULPS(log2e, y, k)
	VROUNDPS(U8(0), k, k)
	VFNMADD231PS(ln2hi, k, y)
	VFNMADD231PS(ln2lo, k, y)
	VBROADCASTSS(word("e6", 1.0/720), e)
	for _, c := range []Mem{word("e5", 1.0/120), word("e4", 1.0/24), word("e3", 1.0/6), word("e2", 0.5), word("e1", 1), word("e0", 1)} {
		VBROADCASTSS(c, t)
		VFMADD213PS(t, y, e) // e = e*y + t
	}
	VCVTPS2DQ(k, k)
	VPSLLD(Imm(23), k, k)
	VPADDD(k, e, e)
	VMOVUPS(e, Mem{Base: x})
	VADDPS(e, sum, sum)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	h := XMM()
	VEXTRACTF128(U8(1), sum, h)
	VADDPS(h, sum.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
