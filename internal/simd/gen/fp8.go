package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

func maxAbs() {
	TEXT("maxAbsAVX2", NOSPLIT, "func(x *float32, n int) float32")
	Pragma("noescape")
	Doc("maxAbsAVX2 is the largest absolute value of n floats, a multiple of 8.")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	most, mask, v := YMM(), YMM(), YMM()
	VXORPS(most, most, most)
	VBROADCASTSS(constant("abs", 0x7fffffff), mask)
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	VANDPS(Mem{Base: x}, mask, v)
	VMAXPS(v, most, most)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	h, t := XMM(), XMM()
	VEXTRACTF128(U8(1), most, h)
	VMAXPS(h, most.AsX(), h)
	VSHUFPS(U8(0x4e), h, h, t)
	VMAXPS(t, h, h)
	VSHUFPS(U8(0xb1), h, h, t)
	VMAXPS(t, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// narrowE4M3 rounds to nearest even: normal numbers in their bits, as bfloat16 does, subnormal ones by adding the power of
// two whose last bit is worth the smallest of them.
func narrowE4M3() {
	TEXT("narrowE4M3AVX2", NOSPLIT, "func(dst *byte, src *float32, w float32, n int)")
	Pragma("noescape")
	Doc("narrowE4M3AVX2 rounds w*src to 8 bits, n elements, a multiple of 8; beyond the largest finite value it saturates.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	w, abs, most, x, sign, normal, small, t := YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	p, _ := Param("w").Resolve()
	VBROADCASTSS(p.Addr, w)
	n := Load(Param("n"), GP64())
	VBROADCASTSS(constant("abs", 0x7fffffff), abs)
	VBROADCASTSS(constant("e4m3max", 0x43e00000), most) // 448
	magic, bias, least := YMM(), YMM(), YMM()
	VBROADCASTSS(constant("e4m3magic", 0x46800000), magic) // 2^14: its last bit is 2^-9
	VPBROADCASTD(constant("e4m3bias", 120<<3), bias)
	VBROADCASTSS(constant("e4m3least", 0x3c800000), least) // 2^-6, the smallest normal number
	each(n, func() {
		VMULPS(Mem{Base: src}, w, x)
		VPSRLD(Imm(31), x, sign)
		VPSLLD(Imm(7), sign, sign)
		VANDPS(x, abs, x)
		VMINPS(most, x, x)
		VPSLLD(Imm(11), x, normal) // the last bit that stays
		VPSRLD(Imm(31), normal, normal)
		VPADDD(normal, x, normal)
		VPBROADCASTD(constant("e4m3half", 0x7ffff), t)
		VPADDD(t, normal, normal)
		VPSRLD(Imm(20), normal, normal)
		VPSUBD(bias, normal, normal)
		VADDPS(magic, x, small)
		VPSUBD(magic, small, small)
		VCMPPS(U8(1), least, x, t) // x < least
		VBLENDVPS(t, small, normal, normal)
		VPOR(sign, normal, normal)
		VEXTRACTI128(Imm(1), normal, t.AsX())
		VPACKUSDW(t.AsX(), normal.AsX(), normal.AsX())
		VPACKUSWB(normal.AsX(), normal.AsX(), normal.AsX())
		VMOVQ(normal.AsX(), Mem{Base: dst})
		ADDQ(Imm(8), dst)
	}, src)
}
