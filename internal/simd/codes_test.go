package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Codes are part of stored objects: every set gives the same bits, at every length, also where it has a tail.
func TestCodesAreTheSameInEverySet(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	for _, k := range All() {
		for _, n := range []int{2, 6, 8, 10, 16, 24, 64, 80, 96, 128, 1024} {
			size := n & -n
			x := guarded[float32](t, n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			want := slices.Clone(x)
			hadamard(want, size)
			k.Hadamard(x, size)
			if !slices.Equal(x, want) {
				t.Fatalf("%s: Hadamard of %d in blocks of %d: got %v, want %v", k.Name, n, size, x, want)
			}
			most := maxAbs(x)
			for _, top := range []float32{15, 255} {
				inv := top / 2 / most / 0.8
				if got, want := k.RoundLoss(x, inv, top), roundLoss(x, inv, top); got != want {
					t.Fatalf("%s: RoundLoss of %d to %v: got %v, want %v", k.Name, n, top, got, want)
				}
				size := n
				if top == 15 {
					size /= 2
				}
				got, want := guarded[byte](t, size), make([]byte, size)
				k.RoundCodes(got, x, 1/inv, top)
				roundCodes(want, x, 1/inv, top)
				if !slices.Equal(got, want) {
					t.Fatalf("%s: RoundCodes of %d to %v: got %v, want %v", k.Name, n, top, got, want)
				}
				back, wantBack := guarded[float32](t, n), make([]float32, n)
				k.Levels(back, got, top)
				levels(wantBack, want, top)
				if !slices.Equal(back, wantBack) {
					t.Fatalf("%s: Levels of %d to %v: got %v, want %v", k.Name, n, top, back, wantBack)
				}
				for i, v := range back {
					if d := math.Abs(float64(v)/2 - min(max(float64(x[i]*inv), -float64(top)/2), float64(top)/2)); d > 0.5001 {
						t.Fatalf("%s: element %d comes back %v steps away", k.Name, i, d)
					}
				}
			}
		}
	}
}

// Halves round to even in every set.
func TestCodesOfHalvesAreEven(t *testing.T) {
	x := []float32{-7.5, -7, -6, -5, -1, 0, 1, 2, 6, 7, 7.5, 8, 100, -100, 0.5, -0.5}
	want := []byte{0, 0, 2, 2, 6, 8, 8, 10, 14, 14, 15, 15, 15, 0, 8, 7}
	for _, k := range All() {
		codes := make([]byte, len(x)/2)
		k.RoundCodes(codes, x, 1, 15)
		for i, w := range want {
			if got := codes[i/2] >> (4 * (i % 2)) & 15; got != w {
				t.Errorf("%s: %v is %d, want %d", k.Name, x[i], got, w)
			}
		}
	}
}

func BenchmarkCodes(b *testing.B) {
	r := rand.New(rand.NewPCG(33, 34))
	x, codes := make([]float32, 128), make([]byte, 64)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for _, k := range All() {
		for name, run := range map[string]func(){
			"Hadamard":   func() { k.Hadamard(x, 128); k.Scale(x, 1/float32(math.Sqrt(128))) },
			"RoundLoss":  func() { k.RoundLoss(x, 3, 15) },
			"RoundCodes": func() { k.RoundCodes(codes, x, 0.3, 15) },
			"Levels":     func() { k.Levels(x, codes, 15) },
		} {
			b.Run(fmt.Sprintf("%s/%s", name, k.Name), func(b *testing.B) {
				b.SetBytes(256)
				for b.Loop() {
					run()
				}
			})
		}
	}
}
