package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

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

	sums := sumAcross(acc)
	MOVQ(s, ps)
	for r := range 4 {
		x := XMM()
		if r == 0 {
			VADDPS(Mem{Base: ps}, sums.AsX(), x)
		} else {
			VEXTRACTF32X4(U8(r), sums, x)
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

// sumAcross makes sixteen vectors of sixteen partial sums one vector of sixteen sums, row by row.
func sumAcross(acc []reg.VecVirtual) reg.VecVirtual {
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
	return y[0]
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

// dotsOf takes rows by a list of indices, four at a time.
func dotsOf() {
	TEXT("dotsOfAVX512", NOSPLIT, "func(dst, q, rows *float32, index *uint16, blocks, stride int)")
	Pragma("noescape")
	Doc("dotsOfAVX512 writes to dst the dot products of q and the rows that 4*blocks indices name.",
		"Rows are stride floats long, a multiple of 16.")
	dst, q, base := Load(Param("dst"), GP64()), Load(Param("q"), GP64()), Load(Param("rows"), GP64())
	index, blocks, stride := Load(Param("index"), GP64()), Load(Param("blocks"), GP64()), Load(Param("stride"), GP64())
	SHLQ(Imm(2), stride)
	r := []reg.GPVirtual{GP64(), GP64(), GP64(), GP64()}
	acc := []reg.VecVirtual{ZMM(), ZMM(), ZMM(), ZMM()}
	x, t := ZMM(), ZMM()
	k := GP64()

	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	for i := range r {
		MOVWQZX(Mem{Base: index, Disp: 2 * i}, r[i])
		IMULQ(stride, r[i])
		ADDQ(base, r[i])
		VPXORD(acc[i], acc[i], acc[i])
	}
	XORQ(k, k)
	Label("inner")
	VMOVUPS(Mem{Base: q, Index: k, Scale: 1}, x)
	for i := range r {
		VFMADD231PS(Mem{Base: r[i], Index: k, Scale: 1}, x, acc[i])
	}
	ADDQ(Imm(64), k)
	CMPQ(k, stride)
	JL(LabelRef("inner"))
	for p := 0; p < 4; p += 2 {
		VUNPCKLPS(acc[p+1], acc[p], t)
		VUNPCKHPS(acc[p+1], acc[p], acc[p])
		VADDPS(t, acc[p], acc[p])
	}
	VUNPCKLPD(acc[2], acc[0], t)
	VUNPCKHPD(acc[2], acc[0], acc[0])
	VADDPS(t, acc[0], acc[0])
	half, quarter := YMM(), XMM()
	VEXTRACTF64X4(U8(1), acc[0], half)
	VADDPS(half, acc[0].AsY(), half)
	VEXTRACTF128(U8(1), half, quarter)
	VADDPS(quarter, half.AsX(), quarter)
	VMOVUPS(quarter, Mem{Base: dst})
	ADDQ(Imm(16), dst)
	ADDQ(Imm(8), index)
	DECQ(blocks)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}
