package pipeline

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
)

// result is a padded result of these slots, with rows of two bytes that name their place: entry i has k {i, 1}, v {i, 2}.
func result(layers, heads int, slots ...int32) *compress.Result {
	r := &compress.Result{Layers: layers, Heads: heads, Cores: int(slices.Max(slots)), Dim: 1, Slots: slots}
	for plane := range slots {
		for i := range r.Cores {
			at := byte(plane*r.Cores + i)
			r.K, r.V = append(r.K, at, 1), append(r.V, at, 2)
			if i < int(slots[plane]) {
				r.Counts, r.Bias, r.Positions = append(r.Counts, int32(at)+1), append(r.Bias, float32(at)), append(r.Positions, float32(at)+0.5)
			} else {
				r.Counts, r.Bias, r.Positions = append(r.Counts, 0), append(r.Bias, float32(math.Inf(-1))), append(r.Positions, 0)
			}
		}
	}
	return r
}

func TestPackLeavesThePaddingOutAndNothingElse(t *testing.T) {
	r := result(2, 2, 1, 3, 2, 1) // three wide: entries 0, 3-5, 6-7 and 9
	used := []byte{0, 3, 4, 5, 6, 7, 9}
	var want tensors
	for _, at := range used {
		want.k, want.v = append(want.k, at, 1), append(want.v, at, 2)
		want.counts = appendInts(want.counts, []int32{int32(at) + 1})
		want.bias = appendFloats(want.bias, []float32{float32(at)})
		want.positions = appendFloats(want.positions, []float32{float32(at) + 0.5})
	}
	var got tensors
	for range 2 { // the second time over the first one's memory
		pack(&got, r)
		for _, c := range []struct {
			name      string
			got, want []byte
		}{
			{"k", got.k, want.k},
			{"v", got.v, want.v},
			{"counts", got.counts, want.counts},
			{"bias", got.bias, want.bias},
			{"positions", got.positions, want.positions},
			{"slots", got.slots, []byte{1, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0}},
		} {
			if !bytes.Equal(c.got, c.want) {
				t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
			}
		}
	}
}

func TestPackAndPadAllocateNothingTheSecondTime(t *testing.T) {
	r := result(4, 8, slices.Repeat([]int32{1, 3, 7, 2}, 8)...)
	var dst tensors
	if n := testing.AllocsPerRun(10, func() { pack(&dst, r); pad(&dst, r) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestPackedWhenPaddingIsMoreThanASixteenth(t *testing.T) {
	for _, c := range []struct {
		name  string
		slots []int32
		want  bool
	}{
		{"no padding", []int32{16, 16, 16, 16}, false},
		{"exactly a sixteenth", []int32{16, 16, 16, 12}, false},
		{"one entry more", []int32{16, 16, 16, 11}, true},
		{"one head of many is large", []int32{1, 1, 1, 16}, true},
		{"one core each", []int32{1, 1, 1, 1}, false},
		{"a single head", []int32{5}, false},
	} {
		if got := wasteful(result(1, len(c.slots), c.slots...)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
