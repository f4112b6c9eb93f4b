// Package simd holds the inner loops of compress: plain Go always, AVX2 and AVX-512 where the processor has them, NEON on
// arm64.
//
// Rows of floats have a stride that is a multiple of [Pad], the rest filled with zeros, so that no kernel has a tail. The
// build tag purego leaves the plain loops only. The assembly of amd64 is generated: see gen, a module of its own; that of
// arm64 is written by hand.
package simd

//go:generate sh -c "cd gen && go run . -out ../kernels_amd64.s -stubs ../kernels_amd64.go -pkg simd"

// Pad is the multiple that row strides keep, in floats.
const Pad = 16

// Stride is the padded length of a row of d floats.
func Stride(d int) int { return (d + Pad - 1) / Pad * Pad }
