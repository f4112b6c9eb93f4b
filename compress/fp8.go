package compress

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
	n := w.out.Cores * w.in.Dim
	a := &w.arena[worker]
	a.sim = grow(a.sim, n)
	for _, x := range []struct {
		from, to []byte
		scale    *float32
	}{{w.out.K, w.k8, &w.out.KScale[plane]}, {w.out.V, w.v8, &w.out.VScale[plane]}} {
		widen(w.kernel, a.sim, group(x.from, plane, n*w.in.DType.Size()), w.in.DType, 1)
		most := float32(0)
		for _, v := range a.sim {
			most = max(most, v, -v)
		}
		*x.scale = 1
		if most > 0 {
			*x.scale = most / largest(w.opt.FP8)
		}
		narrow(w.kernel, group(x.to, plane, n), a.sim, w.opt.FP8, *x.scale)
	}
}

// largest is the largest finite value of an 8-bit type.
func largest(t DType) float32 {
	if t == F8E5M2 {
		return e5m2[e5m2Format.max]
	}
	return e4m3[e4m3Format.max]
}
