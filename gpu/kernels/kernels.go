// Package kernels holds the GPU's kernels: their source in CUDA C++, and the PTX that the pinned compiler makes of it, which
// every driver translates for its device.
package kernels

import _ "embed"

//go:generate ./generate

//go:embed kernels.ptx
var ptx []byte

// PTX is the module, with the zero byte that the driver wants.
func PTX() []byte { return append(append([]byte(nil), ptx...), 0) }
