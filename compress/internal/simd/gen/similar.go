package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// mirror copies the upper triangle of 4x4 blocks to the lower one, each block transposed.
func mirror() {
	TEXT("mirrorAVX2", NOSPLIT, "func(s *float32, ld, n int)")
	Pragma("noescape")
	Doc("mirrorAVX2 copies each 4x4 block above the diagonal of s, rows of ld, transposed below it. n is a multiple of 4.")
	s, ld, n := Load(Param("s"), GP64()), Load(Param("ld"), GP64()), Load(Param("n"), GP64())
	SHLQ(Imm(2), ld)
	ld3 := GP64()
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	from, to, k := GP64(), GP64(), GP64()
	x := []reg.VecVirtual{XMM(), XMM(), XMM(), XMM()}
	y := []reg.VecVirtual{XMM(), XMM(), XMM(), XMM()}

	Label("row") // s is a block of the diagonal
	SUBQ(Imm(4), n)
	JLE(LabelRef("done"))
	LEAQ(Mem{Base: s, Disp: 16}, from)
	LEAQ(Mem{Base: s, Index: ld, Scale: 4}, to)
	MOVQ(n, k)
	Label("block")
	for i, m := range rows(from, ld, ld3) {
		VMOVUPS(m, x[i])
	}
	VUNPCKLPS(x[1], x[0], y[0])
	VUNPCKHPS(x[1], x[0], y[1])
	VUNPCKLPS(x[3], x[2], y[2])
	VUNPCKHPS(x[3], x[2], y[3])
	VUNPCKLPD(y[2], y[0], x[0])
	VUNPCKHPD(y[2], y[0], x[1])
	VUNPCKLPD(y[3], y[1], x[2])
	VUNPCKHPD(y[3], y[1], x[3])
	for i, m := range rows(to, ld, ld3) {
		VMOVUPS(x[i], m)
	}
	ADDQ(Imm(16), from)
	LEAQ(Mem{Base: to, Index: ld, Scale: 4}, to)
	SUBQ(Imm(4), k)
	JNZ(LabelRef("block"))
	LEAQ(Mem{Base: s, Index: ld, Scale: 4}, s)
	ADDQ(Imm(16), s)
	JMP(LabelRef("row"))
	Label("done")
	VZEROUPPER()
	RET()
}

// quantizeRow turns a row of similarities into whole numbers and adds them up.
func quantizeRow() {
	TEXT("quantizeRowAVX512", NOSPLIT, "func(dst *int16, src *float32, scale float32, n, ld int) float64")
	Pragma("noescape")
	Doc("quantizeRowAVX512 writes floor(scale*src) to dst for n floats, the least number for the rest of ld, and returns the sum of src.",
		"ld is a multiple of 16.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	scale, x, least := ZMM(), ZMM(), ZMM()
	p, _ := Param("scale").Resolve()
	VBROADCASTSS(p.Addr, scale)
	n, ld := Load(Param("n"), GP64()), Load(Param("ld"), GP64())
	VPTERNLOGD(Imm(0xff), least, least, least)
	VPSLLW(Imm(15), least, least)
	sum, sum2, wide := ZMM(), ZMM(), ZMM()
	VPXORD(sum, sum, sum)
	VPXORD(sum2, sum2, sum2)
	half := YMM()
	k := K()
	mask := GP32()

	add := func() {
		VCVTPS2PD(x.AsY(), wide)
		VADDPD(wide, sum, sum)
		VEXTRACTF32X8(U8(1), x, half)
		VCVTPS2PD(half, wide)
		VADDPD(wide, sum2, sum2)
	}
	quantum := func() {
		VMULPS(scale, x, x)
		VRNDSCALEPS(U8(1), x, x)
		VCVTPS2DQ(x, x)
		VPMOVSDW(x, half)
	}
	Label("full")
	CMPQ(n, Imm(16))
	JL(LabelRef("tail"))
	VMOVUPS(Mem{Base: src}, x)
	add()
	quantum()
	VMOVDQU(half, Mem{Base: dst})
	ADDQ(Imm(64), src)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), n)
	SUBQ(Imm(16), ld)
	JMP(LabelRef("full"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("rest"))
	MOVL(U32(0xffff), mask)
	count := reg.RCX
	MOVQ(n, count)
	SHLL(reg.CL, mask)
	NOTL(mask)
	ANDL(U32(0xffff), mask)
	KMOVW(mask, k)
	VMOVUPS_Z(Mem{Base: src}, k, x)
	add()
	quantum()
	VPBLENDMW(half, least.AsY(), k, half)
	VMOVDQU(half, Mem{Base: dst})
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), ld)
	Label("rest")
	TESTQ(ld, ld)
	JLE(LabelRef("done"))
	VMOVDQU(least.AsY(), Mem{Base: dst})
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), ld)
	JMP(LabelRef("rest"))
	Label("done")
	VADDPD(sum2, sum, sum)
	VEXTRACTF64X4(U8(1), sum, half)
	VADDPD(half, sum.AsY(), half)
	low := XMM()
	VEXTRACTF128(U8(1), half, low)
	VADDPD(low, half.AsX(), low)
	VHADDPD(low, low, low)
	Store(low, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// weighRow works on 32-bit products in two halves of 16 bits.
func weighRow() {
	TEXT("weighRowAVX2", NOSPLIT, "func(row *int16, weight *uint16, n int)")
	Pragma("noescape")
	Doc("weighRowAVX2 replaces n similarities, a multiple of 16, by 1024 - min((1024-row)*weight/256, 32767).")
	row, weight, n := Load(Param("row"), GP64()), Load(Param("weight"), GP64()), Load(Param("n"), GP64())
	word := func(name string, v uint32) reg.VecVirtual {
		y := YMM()
		VPBROADCASTD(constant(name, v<<16|v), y)
		return y
	}
	one, byteMax, most := word("w1024", 1024), word("w255", 255), word("w32767", 32767)
	zero, d, w, high := YMM(), YMM(), YMM(), YMM()
	VPXOR(zero, zero, zero)
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	VPSUBW(Mem{Base: row}, one, d)
	VPMAXSW(zero, d, d)
	VMOVDQU(Mem{Base: weight}, w)
	VPMULHUW(w, d, high)
	VPMULLW(w, d, d)
	VPMINUW(byteMax, high, high)
	VPSLLW(Imm(8), high, high)
	VPSRLW(Imm(8), d, d)
	VPOR(high, d, d)
	VPMINUW(most, d, d)
	VPSUBW(d, one, d)
	VMOVDQU(d, Mem{Base: row})
	ADDQ(Imm(32), row)
	ADDQ(Imm(32), weight)
	SUBQ(Imm(16), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// count runs greedy clustering on a chunk of at most 64 or 128 tokens: a bit per token that is still free.
func count(words int) {
	name := map[int]string{1: "count64AVX512", 2: "count128AVX512"}[words]
	TEXT(name, NOSPLIT, "func(sim *int16, cand *uint16, n int, live *uint64, t, limit int) int")
	Pragma("noescape")
	Doc(name+" counts the clusters of a chunk at threshold t: sim has rows of 64 or 128 similarities, cand lists n candidates by",
		"priority, live has a bit for each. It stops when there are more than limit.")
	sim, cand, n := Load(Param("sim"), GP64()), Load(Param("cand"), GP64()), Load(Param("n"), GP64())
	from := Load(Param("live"), GP64())
	live := make([]reg.GPVirtual, words)
	for i := range live {
		live[i] = GP64()
		MOVQ(Mem{Base: from, Disp: 8 * i}, live[i])
	}
	t := Load(Param("t"), GP64())
	threshold, row := ZMM(), ZMM()
	VPBROADCASTW(t.(reg.GPVirtual).As32(), threshold)
	limit := Load(Param("limit"), GP64())
	clusters, seed, at, mask, bit := GP64(), GP64(), GP64(), GP64(), GP64()
	XORQ(clusters, clusters)
	low, high := K(), K()

	Label("next")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	MOVWQZX(Mem{Base: cand}, seed)
	ADDQ(Imm(2), cand)
	DECQ(n)
	if words == 1 {
		BTQ(seed, live[0])
		JCC(LabelRef("next"))
	} else {
		MOVQ(live[0], bit)
		CMPQ(seed, Imm(64))
		CMOVQGE(live[1], bit)
		BTQ(seed, bit) // modulo 64
		JCC(LabelRef("next"))
	}
	INCQ(clusters)
	CMPQ(clusters, limit)
	JGT(LabelRef("done"))
	MOVQ(seed, at)
	SHLQ(Imm(uint64(6+words)), at) // rows of 64 or 128 words of 2 bytes
	ADDQ(sim, at)
	for i := range live {
		VMOVDQU64(Mem{Base: at, Disp: 128 * i}, row)
		VPCMPW(Imm(5), threshold, row, low)
		VMOVDQU64(Mem{Base: at, Disp: 128*i + 64}, row)
		VPCMPW(Imm(5), threshold, row, high)
		KUNPCKDQ(low, high, low)
		KMOVQ(low, mask)
		ANDNQ(live[i], mask, live[i])
	}
	// The seed itself is taken whatever its similarity to itself.
	if words == 1 {
		BTRQ(seed, live[0])
	} else {
		CMPQ(seed, Imm(64))
		JGE(LabelRef("upper"))
		BTRQ(seed, live[0])
		JMP(LabelRef("next"))
		Label("upper")
		BTRQ(seed, live[1])
	}
	JMP(LabelRef("next"))
	Label("done")
	Store(clusters, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
