package compress

import "github.com/semproxy/semproxy/internal/simd"

// rounding is the phase that brings the cores to 8 bits, each head with the scale that maps its largest element to the largest finite
// code.
type rounding struct {
	pg     *page
	out    *Result
	k8, v8 []byte      // the cores in 8 bits
	wide   [][]float32 // [workers][cores, dim], the same in 32
	task   func(worker, plane int)
}

func newRounding(workers int) *rounding {
	r := &rounding{wide: make([][]float32, workers)}
	r.task = r.plane
	return r
}

// run changes the cores of out, when the options ask for 8 bits and the page has more.
func (r *rounding) run(pg *page, out *Result) {
	t := pg.opt.FP8
	if !t.FP8() || pg.in.DType.FP8() {
		return
	}
	r.pg, r.out = pg, out
	n := len(out.K) / pg.in.DType.Size()
	r.k8, r.v8 = grow(r.k8, n), grow(r.v8, n)
	out.KScale, out.VScale = grow(out.KScale, pg.in.planes()), grow(out.VScale, pg.in.planes())
	pg.each(pg.in.planes(), r.task)
	// The page's memory takes the smaller tensors, so that the next page finds it again.
	out.K, out.V, out.DType = append(out.K[:0], r.k8...), append(out.V[:0], r.v8...), t
	r.out = nil
}

// plane does one plane.
func (r *rounding) plane(worker, plane int) {
	in, out, kn, t := r.pg.in, r.out, r.pg.kernel, r.pg.opt.FP8
	n, used, size := out.Cores*in.Dim, int(out.Slots[plane])*in.Dim, in.DType.Size()
	r.wide[worker] = grow(r.wide[worker], used)
	wide := r.wide[worker]
	for _, x := range []struct {
		from, to []byte
		scale    *float32
	}{{out.K, r.k8, &out.KScale[plane]}, {out.V, r.v8, &out.VScale[plane]}} {
		widen(kn, wide, group(x.from, plane, n*size), in.DType, 1)
		*x.scale = 1
		if most := kn.MaxAbs(wide); most > 1e-30 { // what is smaller rounds to zero
			*x.scale = most / largest(t)
		}
		to := group(x.to, plane, n)
		narrow(kn, to[:used], wide, t, *x.scale)
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
