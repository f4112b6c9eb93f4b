package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestMirror(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, k := range All() {
		for n := 4; n <= 100; n += 4 {
			ld := n + 4*(n%3)
			s := random(r, n*ld, n%5)
			want := append([]float32{}, s...)
			for i := range n {
				for j := range i &^ 3 {
					want[i*ld+j] = s[j*ld+i]
				}
			}
			k.Mirror(s, ld, n)
			for i := range want {
				if s[i] != want[i] {
					t.Fatalf("%s: mirror of %d [%d,%d] = %v, want %v", k.Name, n, i/ld, i%ld, s[i], want[i])
				}
			}
		}
	}
}

func TestQuantize(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, k := range All() {
		for n := range 130 {
			for _, ld := range []int{(n + 15) &^ 15, 128, 144} {
				if ld < n {
					continue
				}
				src, dst := random(r, n+16, 1), make([]int16, ld+1)
				if n > 3 {
					src[0], src[1], src[2] = 1, -1, 0.5
				}
				dst[ld] = 77
				sum, want := k.Quantize(dst, src, 1024, n, ld), 0.0
				for i := range ld {
					w := float64(math.MinInt16)
					if i < n {
						want += float64(src[i])
						w = min(max(math.Floor(float64(src[i]*1024)), math.MinInt16), math.MaxInt16)
					}
					if float64(dst[i]) != w {
						t.Fatalf("%s: quantize of %d [%d of %d] = %d, want %v (%v)", k.Name, n, i, ld, dst[i], w, src[i])
					}
				}
				if math.Abs(sum-want) > 1e-9*(1+math.Abs(want)) || dst[ld] != 77 {
					t.Fatalf("%s: quantize of %d: sum %v, want %v; behind the row %d", k.Name, n, sum, want, dst[ld])
				}
			}
		}
	}
}

func TestWeigh(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	for _, k := range All() {
		for n := range 130 {
			row, weight, want := make([]int16, n+1)[1:], make([]uint16, n+1)[1:], make([]int64, n)
			for i := range row {
				row[i], weight[i] = int16(r.IntN(2050)-1025), uint16(r.IntN(1<<(1+r.IntN(16))))
				want[i] = 1024 - min((1024-int64(row[i]))*int64(weight[i])/256, 32767)
			}
			k.Weigh(row, weight)
			for i := range row {
				if int64(row[i]) != want[i] {
					t.Fatalf("%s: %d of %d: %d, want %d", k.Name, i, n, row[i], want[i])
				}
			}
		}
	}
}

// Every set counts as greedy clustering is defined.
func TestCount(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for _, k := range All() {
		for _, ld := range []int{64, 128, 208} {
			for chunks := range 10 {
				at, words, want := r.IntN(2052)-1025, (ld+63)/64, 0
				live, starts := make([]uint64, chunks*words), make([]int, chunks)
				var sim []int16
				for c := range starts {
					n := 1 + r.IntN(ld)
					starts[c] = len(sim)
					for range n * ld {
						sim = append(sim, int16(r.IntN(2049)-1024))
					}
					free := make([]bool, n)
					for _, i := range r.Perm(n)[:r.IntN(n+1)] {
						live[c*words+i/64] |= 1 << (i % 64)
						free[i] = true
					}
					want += clusters(sim[starts[c]:], ld, free, at)
				}
				was := slices.Clone(live)
				if got := k.Count(sim, ld, starts, live, at); got != want || !slices.Equal(live, was) {
					t.Fatalf("%s: %d clusters in %d chunks at %d, want %d", k.Name, got, chunks, at, want)
				}
			}
		}
	}
}

// clusters is greedy clustering in plain words.
func clusters(sim []int16, ld int, free []bool, at int) (n int) {
	for s := range free {
		if free[s] {
			n++
			for j := s + 1; j < len(free); j++ {
				free[j] = free[j] && int(sim[s*ld+j]) < at
			}
		}
	}
	return n
}

func TestRank(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	for _, k := range All() {
		for n := range 150 {
			keys, order := make([]uint64, n), make([]uint16, n+1)
			for i, p := range r.Perm(n) {
				keys[i] = math.MaxUint64>>r.IntN(2)&^255 - 256 + uint64(p)
			}
			order[n] = 77
			k.Rank(order, keys)
			if order[n] != 77 {
				t.Fatalf("%s: wrote behind %d indices", k.Name, n)
			}
			for i := 1; i < n; i++ {
				if keys[order[i-1]] >= keys[order[i]] {
					t.Fatalf("%s: of %d, key %d (%x) stands before %d (%x)", k.Name, n, order[i-1], keys[order[i-1]], order[i], keys[order[i]])
				}
			}
		}
	}
}

func TestReorder(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for _, k := range All() {
		for n := range 150 {
			ld := []int{64, 128, 160}[max(n-1, 0)/64]
			src, dst, order := make([]int16, n*ld+1)[1:], make([]int16, n*ld+1), make([]uint16, n)
			for i := range src {
				src[i] = int16(r.IntN(1 << 16))
			}
			for i, p := range r.Perm(n) {
				order[i] = uint16(p)
			}
			dst[n*ld] = 77
			k.Reorder(dst[:n*ld], src, ld, order)
			for i := range n {
				for j := i + 1; j < n; j++ {
					if got, want := dst[i*ld+j], src[int(order[i])*ld+int(order[j])]; got != want {
						t.Fatalf("%s: row %d, column %d of %d is %d, want %d", k.Name, i, j, n, got, want)
					}
				}
			}
			if dst[n*ld] != 77 {
				t.Fatalf("%s: wrote behind %d rows", k.Name, n)
			}
		}
	}
}
