//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"cmp"
	"maps"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
)

// aligned is got with its cores in the order of want's, nil when they are not the same clusters.
//
// Two things depend on the last bits of a float32, which another order of summation changes. Seeds whose centralities are equal
// but for them may stand in either order, and so may their cores: neighbours change places. And a similarity that lies that close to a
// step of 1/1024 may fall on either side of it, which can move a token: one in a thousand may be in another cluster, and the cores
// that it left and joined are not compared.
func aligned(t *testing.T, what string, got, want *compress.Result) *compress.Result {
	t.Helper()
	planes, moved, strayed := got.Layers*got.Heads, 0, 0
	out := *got
	out.Counts, out.Positions, out.Bias = slices.Clone(want.Counts), slices.Clone(want.Positions), slices.Clone(want.Bias)
	out.K, out.V = slices.Clone(want.K), slices.Clone(want.V)
	row := got.Dim * got.DType.Size()
	for plane := range planes {
		to, stray := matched(got, want, plane)
		strayed += len(stray)
		apart := map[int32]bool{} // cores of want that a stray token left or joined
		for _, i := range stray {
			apart[want.Assign[i]] = true
			if w, ok := to[got.Assign[i]]; ok {
				apart[w] = true
			}
		}
		for g, w := range to {
			if g != w {
				moved++
			}
			if most := int32(2 + 2*len(stray)); g > w+most || w > g+most {
				t.Errorf("%s: plane %d core %d stands at %d", what, plane, w, g)
				return nil
			}
			if apart[w] {
				continue
			}
			from, at := plane*got.Cores+int(g), plane*got.Cores+int(w)
			out.Counts[at], out.Positions[at], out.Bias[at] = got.Counts[from], got.Positions[from], got.Bias[from]
			copy(out.K[at*row:(at+1)*row], got.K[from*row:])
			copy(out.V[at*row:(at+1)*row], got.V[from*row:])
		}
	}
	if most := planes * got.Tokens / 1000; strayed > most {
		t.Errorf("%s: %d tokens are in another cluster, want at most %d", what, strayed, most)
		return nil
	}
	if most := 4 + planes*got.Cores/200; moved > most && strayed == 0 {
		t.Errorf("%s: %d cores stand elsewhere, want at most %d", what, moved, most)
		return nil
	}
	return &out
}

// matched pairs the cores of one plane that have most tokens in common, and lists the tokens, as indices of Assign, that are not in
// a pair.
func matched(got, want *compress.Result, plane int) (to map[int32]int32, stray []int) {
	type pair struct{ g, w int32 }
	common := map[pair]int{}
	for i := range got.Tokens {
		at := plane*got.Tokens + i
		common[pair{got.Assign[at], want.Assign[at]}]++
	}
	to, taken := map[int32]int32{}, map[int32]bool{}
	for _, p := range slices.SortedFunc(maps.Keys(common), func(a, b pair) int {
		return cmp.Or(common[b]-common[a], cmp.Compare(a.g, b.g), cmp.Compare(a.w, b.w))
	}) {
		if _, ok := to[p.g]; !ok && !taken[p.w] {
			to[p.g], taken[p.w] = p.w, true
		}
	}
	for i := range got.Tokens {
		at := plane*got.Tokens + i
		if w, ok := to[got.Assign[at]]; !ok || w != want.Assign[at] {
			stray = append(stray, at)
		}
	}
	return to, stray
}
