//go:build purego || !(amd64 || arm64)

package simd

var all = []*Kernels{&generic}
