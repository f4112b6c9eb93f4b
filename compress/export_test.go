package compress

import "github.com/semproxy/semproxy/internal/simd"

// NewWith starts a compressor that uses the given set of inner loops.
func NewWith(workers int, kernel *simd.Kernels) *Compressor { return newWith(workers, kernel) }
