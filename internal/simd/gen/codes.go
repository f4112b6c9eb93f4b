package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// signs is a vector with the sign bit where lanes has a bit.
func signs(name string, lanes uint) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		bit := uint32(0)
		if lanes>>i&1 == 1 {
			bit = 1 << 31
		}
		DATA(4*i, U32(bit))
	}
	return m
}

// hadamard does the first three steps within a vector: each lane's partner is brought beside it, and the upper one of the two changes
// its sign.
func hadamard() {
	TEXT("hadamardAVX2", NOSPLIT, "func(x *float32, n, size int)")
	Pragma("noescape")
	Doc("hadamardAVX2 multiplies each block of size floats, a power of two from 8 on, of n by the Hadamard matrix.")
	x, n, size := Load(Param("x"), GP64()), Load(Param("n"), GP64()), Load(Param("size"), GP64())
	var masks []reg.VecVirtual
	for i, lanes := range []uint{0b10101010, 0b11001100, 0b11110000} {
		v := YMM()
		VMOVUPS(signs([]string{"odd", "pairs", "upper"}[i], lanes), v)
		masks = append(masks, v)
	}
	end, p := GP64(), GP64()
	LEAQ(Mem{Base: x, Index: n, Scale: 4}, end)
	MOVQ(x, p)
	v, t := YMM(), YMM()
	Label("lanes")
	VMOVUPS(Mem{Base: p}, v)
	for i, mask := range masks {
		switch i {
		case 0:
			VPERMILPS(U8(0xb1), v, t)
		case 1:
			VPERMILPS(U8(0x4e), v, t)
		default:
			VPERM2F128(U8(1), v, v, t)
		}
		VXORPS(mask, v, v)
		VADDPS(t, v, v)
	}
	VMOVUPS(v, Mem{Base: p})
	ADDQ(Imm(32), p)
	CMPQ(p, end)
	JLT(LabelRef("lanes"))

	h := GP64()
	MOVQ(U32(32), h) // in bytes
	SHLQ(Imm(2), size)
	a, b, stop, u := GP64(), GP64(), GP64(), YMM()
	Label("step")
	CMPQ(h, size)
	JGE(LabelRef("done"))
	MOVQ(x, a)
	Label("block")
	LEAQ(Mem{Base: a, Index: h, Scale: 1}, b)
	MOVQ(b, stop)
	Label("pair")
	VMOVUPS(Mem{Base: a}, u)
	VMOVUPS(Mem{Base: b}, v)
	VADDPS(v, u, t)
	VSUBPS(v, u, u)
	VMOVUPS(t, Mem{Base: a})
	VMOVUPS(u, Mem{Base: b})
	ADDQ(Imm(32), a)
	ADDQ(Imm(32), b)
	CMPQ(a, stop)
	JLT(LabelRef("pair"))
	MOVQ(b, a)
	CMPQ(a, end)
	JLT(LabelRef("block"))
	SHLQ(Imm(1), h)
	JMP(LabelRef("step"))
	Label("done")
	VZEROUPPER()
	RET()
}

func roundLoss() {
	TEXT("roundLossAVX2", NOSPLIT, "func(x *float32, n int, inv, top float32) float32")
	Pragma("noescape")
	Doc("roundLossAVX2 is the squared error of rounding x*inv + top/2 to whole numbers from 0 to top, of n floats, a multiple of 8.")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	inv, top := YMM(), YMM()
	broadcast("inv", inv)
	broadcast("top", top)
	half, middle, zero, sum, u, q := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	VBROADCASTSS(constant("half", 0x3f000000), half)
	VMULPS(half, top, middle)
	VXORPS(zero, zero, zero)
	VXORPS(sum, sum, sum)
	Label("loop")
	VMULPS(Mem{Base: x}, inv, u)
	VADDPS(middle, u, u)
	VADDPS(half, u, q)
	VCVTTPS2DQ(q, q)
	VCVTDQ2PS(q, q)
	VMAXPS(zero, q, q)
	VMINPS(top, q, q)
	VSUBPS(q, u, u)
	VMULPS(u, u, u)
	VADDPS(u, sum, sum)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	h := XMM()
	VEXTRACTF128(U8(1), sum, h)
	VADDPS(h, sum.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func roundCodes(bits string, top uint32) {
	TEXT("roundCodes"+bits+"AVX2", NOSPLIT, "func(codes *byte, x *float32, n int, step float32)")
	Pragma("noescape")
	Doc("roundCodes" + bits + "AVX2 writes the codes of " + bits + " bits nearest to x/step of n floats, a multiple of 8.")
	codes, x, n := Load(Param("codes"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	step := YMM()
	broadcast("step", step)
	most, middle, zero, v, weights := YMM(), YMM(), YMM(), YMM(), XMM()
	VBROADCASTSS(constant("top"+bits, top), most)
	VBROADCASTSS(constant("half", 0x3f000000), middle)
	VMULPS(most, middle, middle)
	VXORPS(zero, zero, zero)
	if bits == "4" {
		VPBROADCASTD(constant("nibbles", 0x10011001), weights)
	}
	h := XMM()
	Label("loop")
	VMOVUPS(Mem{Base: x}, v)
	VDIVPS(step, v, v)
	VADDPS(middle, v, v)
	VROUNDPS(U8(0), v, v)
	VMAXPS(zero, v, v)
	VMINPS(most, v, v)
	VCVTPS2DQ(v, v)
	VEXTRACTI128(U8(1), v, h)
	VPACKUSDW(h, v.AsX(), h)
	VPACKUSWB(h, h, h)
	if bits == "4" {
		VPMADDUBSW(weights, h, h)
		VPACKUSWB(h, h, h)
		VMOVD(h, Mem{Base: codes})
		ADDQ(Imm(4), codes)
	} else {
		VMOVQ(h, Mem{Base: codes})
		ADDQ(Imm(8), codes)
	}
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func levels(bits string, top uint32) {
	TEXT("levels"+bits+"AVX2", NOSPLIT, "func(dst *float32, codes *byte, n int)")
	Pragma("noescape")
	Doc("levels" + bits + "AVX2 writes twice each code of " + bits + " bits less the largest one, n floats, a multiple of 8.")
	dst, codes, n := Load(Param("dst"), GP64()), Load(Param("codes"), GP64()), Load(Param("n"), GP64())
	most, v, low, high, mask := YMM(), YMM(), XMM(), XMM(), XMM()
	VBROADCASTSS(constant("top"+bits, top), most)
	if bits == "4" {
		VPBROADCASTD(constant("low", 0x0f0f0f0f), mask)
	}
	Label("loop")
	if bits == "4" {
		VMOVD(Mem{Base: codes}, low)
		VPSRLW(Imm(4), low, high)
		VPAND(mask, low, low)
		VPAND(mask, high, high)
		VPUNPCKLBW(high, low, low)
		VPMOVZXBD(low, v)
		ADDQ(Imm(4), codes)
	} else {
		VPMOVZXBD(Mem{Base: codes}, v)
		ADDQ(Imm(8), codes)
	}
	VCVTDQ2PS(v, v)
	VADDPS(v, v, v)
	VSUBPS(most, v, v)
	VMOVUPS(v, Mem{Base: dst})
	ADDQ(Imm(32), dst)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
