package eval

import (
	"sync"
	"sync/atomic"

	"github.com/semproxy/semproxy/internal/simd"
)

// rows holds a batch of vectors: n of them, each dim floats padded with zeros to stride; the memory is a multiple of four
// rows, as the kernels want.
type rows struct {
	n, dim, stride int
	x              []float32
}

func (r *rows) reset(n, dim int) {
	r.n, r.dim, r.stride = n, dim, simd.Stride(dim)
	r.x = zeroed(r.x, up4(n)*r.stride)
}

func (r *rows) row(i int) []float32 { return r.x[i*r.stride : i*r.stride+r.dim] }

func up4(n int) int { return (n + 3) &^ 3 }

// Blocks of the product: so many rows of the matrix are widened at a time and multiplied with so many vectors.
const blockOut, blockIn = 64, 32

// multiply sets y to x times the transpose of m, plus its bias.
func (s *Session) multiply(y, x *rows, m *matrix) {
	y.reset(x.n, m.rows)
	rowBytes := m.cols * m.dtype.Size()
	blocks := (m.rows + blockOut - 1) / blockOut
	s.parallel(blocks, func(worker, block int) {
		first := block * blockOut
		n := min(blockOut, m.rows-first)
		w := zeroed(s.scratch[worker].weights, up4(n)*x.stride)
		s.scratch[worker].weights = w
		for i := range n {
			widen(s.m.kernel, w[i*x.stride:i*x.stride+m.cols], m.data[(first+i)*rowBytes:], m.dtype)
		}
		for t := 0; t < x.n; t += blockIn {
			nt := min(blockIn, up4(x.n-t))
			s.m.kernel.Dots(y.x[t*y.stride+first:], y.stride, x.x[t*x.stride:], w, nt, up4(n), x.stride)
		}
		if m.bias != nil {
			for t := range x.n {
				row := y.row(t)[first : first+n]
				for i, b := range m.bias[first : first+n] {
					row[i] += b
				}
			}
		}
	})
}

// parallel runs f for 0..n-1 on the session's workers and waits for them.
func (s *Session) parallel(n int, f func(worker, i int)) {
	workers := min(len(s.scratch), n)
	if workers <= 1 {
		for i := range n {
			f(0, i)
		}
		return
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(w, i)
			}
		})
	}
	wait.Wait()
}
