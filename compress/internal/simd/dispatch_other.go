//go:build !amd64 || purego

package simd

var all = []*Kernels{&generic}
