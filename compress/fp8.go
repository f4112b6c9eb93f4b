package compress

import "github.com/semproxy/semproxy/internal/simd"

// runFP8 rounds the cores to 8 bits, each head with the scale that maps its largest element to the largest finite code.
func (w *work) runFP8(p *pool) {
	t := w.opt.FP8
	if !t.FP8() || w.in.DType.FP8() {
		return
	}
	out := w.out
	n := len(out.K) / w.in.DType.Size()
	w.k8, w.v8 = grow(w.k8, n), grow(w.v8, n)
	out.KScale, out.VScale = grow(out.KScale, w.in.planes()), grow(out.VScale, w.in.planes())
	p.run(&w.phase, w.in.planes(), w.fp8Task)
	// The page's memory takes the smaller tensors, so that the next page finds it again.
	out.K, out.V, out.DType = append(out.K[:0], w.k8...), append(out.V[:0], w.v8...), t
}

func (w *work) toFP8(worker, plane int) {
	n, used := w.out.Cores*w.in.Dim, int(w.out.Slots[plane])*w.in.Dim
	a, size := &w.arena[worker], w.in.DType.Size()
	a.sim = grow(a.sim, used)
	for _, x := range []struct {
		from, to []byte
		scale    *float32
	}{{w.out.K, w.k8, &w.out.KScale[plane]}, {w.out.V, w.v8, &w.out.VScale[plane]}} {
		widen(w.kernel, a.sim, group(x.from, plane, n*size), w.in.DType, 1)
		*x.scale = 1
		if most := w.kernel.MaxAbs(a.sim); most > 1e-30 { // what is smaller rounds to zero
			*x.scale = most / largest(w.opt.FP8)
		}
		to := group(x.to, plane, n)
		narrow(w.kernel, to[:used], a.sim, w.opt.FP8, *x.scale)
		clear(to[used:])
	}
}

// largest is the largest finite value of an 8-bit type.
func largest(t DType) float32 {
	if t == F8E5M2 {
		return e5m2[simd.E5M2.Max]
	}
	return e4m3[simd.E4M3.Max]
}
