package main

import (
	"fmt"

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

// rankOf counts, for every key, how many are smaller.
func rankOf(vectors int) {
	name := fmt.Sprintf("rank%dAVX512", 8*vectors)
	TEXT(name, NOSPLIT, "func(order *uint16, keys *uint64, n int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s writes the indices of n keys to order, the smallest first. All keys differ, and there are %d, those past n larger", name, 8*vectors),
		"than the others.")
	order, keys, n := Load(Param("order"), GP64()), Load(Param("keys"), GP64()), Load(Param("n"), GP64())
	key, one := ZMM(), ZMM()
	t := GP64()
	MOVQ(I32(1), t)
	VPBROADCASTQ(t, one)
	const atOnce = 8 // vectors of keys and of ranks that registers hold
	k, from, at := GP64(), GP64(), GP64()
	ranks, end := AllocLocal(64*atOnce), GP64()
	for v := 0; v < vectors; v += atOnce {
		held, rank := make([]reg.VecVirtual, min(atOnce, vectors-v)), make([]reg.VecVirtual, min(atOnce, vectors-v))
		for i := range held {
			held[i], rank[i] = ZMM(), ZMM()
			VMOVDQU64(Mem{Base: keys, Disp: 64 * (v + i)}, held[i])
			VPXORQ(rank[i], rank[i], rank[i])
		}
		more := K()
		MOVQ(n, k)
		MOVQ(keys, from)
		loop := fmt.Sprintf("loop%d", v)
		Label(loop)
		VPBROADCASTQ(Mem{Base: from}, key)
		ADDQ(Imm(8), from)
		for i := range held {
			VPCMPUQ(Imm(6), key, held[i], more) // held > key
			VPADDQ(one, rank[i], more, rank[i])
		}
		DECQ(k)
		JNZ(LabelRef(loop))
		for i := range rank {
			VMOVDQU64(rank[i], ranks.Offset(64*i))
		}
		place, placed := fmt.Sprintf("place%d", v), fmt.Sprintf("placed%d", v)
		MOVQ(I32(8*(v+len(held))), end)
		CMPQ(n, end)
		CMOVQLT(n, end)
		MOVQ(I32(8*v), k)
		LEAQ(ranks, from)
		Label(place)
		CMPQ(k, end)
		JGE(LabelRef(placed))
		MOVQ(Mem{Base: from}, at)
		ADDQ(Imm(8), from)
		MOVW(k.As16(), Mem{Base: order, Index: at, Scale: 2})
		INCQ(k)
		JMP(LabelRef(place))
		Label(placed)
	}
	VZEROUPPER()
	RET()
}

// reorder permutes a chunk of at most 64*words tokens.
func reorder(words int) {
	name := map[int]string{1: "reorder64AVX512", 2: "reorder128AVX512"}[words]
	TEXT(name, NOSPLIT, "func(dst, src *int16, order *uint16, n int)")
	Pragma("noescape")
	Doc(name + " writes to row r, column j of dst what src holds at order[r], order[j], n rows of as many columns as its name says.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	order, n := Load(Param("order"), GP64()), Load(Param("n"), GP64())
	vectors := 2 * words
	index, upper := make([]reg.VecVirtual, vectors), make([]reg.Register, vectors)
	bit, t := ZMM(), GP32()
	MOVL(U32(64), t)
	VPBROADCASTW(t, bit)
	for i := range index {
		index[i] = ZMM()
		VMOVDQU64(Mem{Base: order, Disp: 64 * i}, index[i])
		if words == 2 {
			upper[i] = K()
			VPTESTMW(bit, index[i], upper[i])
		}
	}
	from, x, y := GP64(), ZMM(), ZMM()
	in := make([]reg.VecVirtual, vectors)
	for i := range in {
		in[i] = ZMM()
	}
	Label("row")
	MOVWQZX(Mem{Base: order}, from)
	ADDQ(Imm(2), order)
	SHLQ(Imm(uint64(6+words)), from)
	ADDQ(src, from)
	for i := range in {
		VMOVDQU64(Mem{Base: from, Disp: 64 * i}, in[i])
	}
	for i := range index {
		VMOVDQA64(in[0], x)
		VPERMT2W(in[1], index[i], x)
		if words == 2 {
			VMOVDQA64(in[2], y)
			VPERMT2W(in[3], index[i], y)
			VMOVDQU16(y, upper[i], x)
		}
		VMOVDQU64(x, Mem{Base: dst, Disp: 64 * i})
	}
	ADDQ(I32(64*vectors), dst)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// count runs greedy clustering on several chunks of at most 64*words tokens side by side: a bit per token that is still free.
// One clustering is a chain of steps that wait for each other; several keep the processor busy and wait for memory
// together. A chain that has ended goes on with nothing until all have.
func count(words, chains int) {
	name := map[int]string{1: "count64AVX512", 2: "count128AVX512"}[words]
	TEXT(name, NOSPLIT, "func(sim *int16, starts *int, live *uint64, batches, t int) int")
	Pragma("noescape")
	Doc(name+fmt.Sprintf(" counts the clusters of batches of %d chunks at threshold t: chunk k has rows of as many similarities as", chains),
		fmt.Sprintf("the name says, by seed priority, from sim[starts[k]] on, and %d words of live with a bit for each candidate.", words))
	left := AllocLocal(8)
	starts, from := Load(Param("starts"), GP64()), Load(Param("live"), GP64())
	clusters, row, mask := GP64(), GP64(), GP64()
	Load(Param("batches"), row)
	MOVQ(row, left)
	Load(Param("t"), row)
	threshold := ZMM()
	VPBROADCASTW(row.As32(), threshold)
	XORQ(clusters, clusters)
	live, base := make([][]reg.GPVirtual, chains), make([]reg.GPVirtual, chains)
	for i := range live {
		live[i], base[i] = make([]reg.GPVirtual, words), GP64()
		for w := range live[i] {
			live[i][w] = GP64()
		}
	}
	low, high := K(), K()
	stay := func(disp int) { // leaves in mask the bits of those that stay free
		VPCMPW(Imm(6), Mem{Base: row, Disp: disp}, threshold, low)
		VPCMPW(Imm(6), Mem{Base: row, Disp: disp + 64}, threshold, high)
		KUNPCKDQ(low, high, low)
		KMOVQ(low, mask)
	}

	Label("batch")
	Load(Param("sim"), row)
	for i := range live {
		MOVQ(Mem{Base: starts, Disp: 8 * i}, base[i])
		LEAQ(Mem{Base: row, Index: base[i], Scale: 2}, base[i])
		for w := range live[i] {
			MOVQ(Mem{Base: from, Disp: 8 * (words*i + w)}, live[i][w])
		}
	}
	for word := range words {
		loop, done := fmt.Sprintf("loop%d", word), fmt.Sprintf("done%d", word)
		Label(loop)
		MOVQ(live[0][word], mask)
		for _, l := range live[1:] {
			ORQ(l[word], mask)
		}
		JZ(LabelRef(done))
		for i := range live {
			l, next := live[i][word], fmt.Sprintf("next%d_%d", word, i)
			if words == 2 { // without a seed nothing may be taken from the second word, and the chunk may have no row 64
				TESTQ(l, l)
				JZ(LabelRef(next))
			}
			TZCNTQ(l, row)
			ANDQ(Imm(63), row) // of one word and nothing left: row 0 does
			SHLQ(Imm(uint64(6+words)), row)
			ADDQ(base[i], row)
			if word == 0 && words == 2 {
				stay(128)
				ANDQ(mask, live[i][1])
			}
			stay(64*256*word + 128*word) // rows of the second word start behind 64 rows of 256 bytes
			CMPQ(l, Imm(1))
			SBBQ(I8(-1), clusters) // one more, if there was a seed
			BLSRQ(l, l)            // the seed itself
			ANDQ(mask, l)
			Label(next)
		}
		JMP(LabelRef(loop))
		Label(done)
	}
	ADDQ(I32(8*chains), starts)
	ADDQ(I32(8*chains*words), from)
	DECQ(left)
	JNZ(LabelRef("batch"))
	Store(clusters, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
