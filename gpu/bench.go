package gpu

import (
	"math/rand/v2"
	"time"

	"github.com/semproxy/semproxy/gpu/cuda"
)

// Rates are what a device copies, in bytes per second. Within counts each byte once, though it is read and written.
type Rates struct{ Within, In, Out float64 }

// Copies measures copies of n bytes, which is the limit that everything else is held against.
func Copies(opt Options, n, repeat int) (r Rates, err error) {
	err = withDevice(opt, func(l *lab) error {
		l.rates(&r, n, repeat)
		return l.err
	})
	return r, err
}

func (l *lab) rates(r *Rates, n, repeat int) {
	from, to := l.alloc(n), l.alloc(n)
	host, err := l.d.ctx.HostAlloc(n)
	if l.do(err); l.err != nil {
		return
	}
	rate := func(f func() error) float64 {
		return float64(n) / l.timed(repeat, func() { l.do(f()) }).Seconds()
	}
	ctx, s := l.d.ctx, l.slot().stream
	r.In = rate(func() error { return ctx.CopyIn(from, host, s) })
	r.Within = rate(func() error { return ctx.CopyWithin(to, from, n, s) })
	r.Out = rate(func() error { return ctx.CopyOut(host, to, s) })
	l.do(ctx.HostFree(host))
}

// DecodeTime is the measured time of a decode step.
type DecodeTime struct {
	Shape    DecodeShape
	Step     time.Duration
	Bytes    int     // of K and V that a step reads
	Fraction float64 // of the device's copy rate that reading them reached: a copy moves each byte twice
	Skipped  bool    // the device has not the memory
}

// BenchDecode times decode steps of every shape, with random keys, in blocks that lie in random order. weighed steps read a
// count per entry as compressed caches have it.
func BenchDecode(opt Options, shapes []DecodeShape, weighed []bool, repeat int) (rates Rates, out []DecodeTime, err error) {
	for i := range shapes {
		if err := shapes[i].Check(); err != nil {
			return rates, nil, err
		}
	}
	err = withDevice(opt, func(l *lab) error {
		l.rates(&rates, min(256<<20, opt.Memory/4), repeat)
		l.free()
		for i, s := range shapes {
			free, _, err := l.d.ctx.MemInfo()
			if l.do(err); l.err != nil {
				return l.err
			}
			x := DecodeTime{Shape: s, Bytes: s.bytes(), Skipped: uint64(s.bytes())*9/8 > free}
			if !x.Skipped {
				x.Step = l.decode(s, weighed[i], repeat)
				x.Fraction = float64(x.Bytes) / x.Step.Seconds() / (2 * rates.Within)
			}
			l.free()
			out = append(out, x)
		}
		return l.err
	})
	return rates, out, err
}

// decode times one shape.
func (l *lab) decode(s DecodeShape, weighed bool, repeat int) time.Duration {
	r := rand.New(rand.NewPCG(1, 2))
	blocks := s.Batch * s.blocks()
	a := s.attend()
	rows := blocks * s.BlockSize * s.KVHeads
	a.k, a.v = l.noise(r, rows*s.Dim*s.DType.Size()), l.noise(r, rows*s.Dim*s.DType.Size())
	a.q = l.noise(r, s.Batch*s.QHeads*s.Dim*s.DType.Size())
	table := make([]int32, blocks)
	for i, k := range r.Perm(blocks) {
		table[i] = int32(k)
	}
	a.table = l.put(viewBytes(table))
	if weighed {
		counts := make([]int32, rows)
		for i := range counts {
			counts[i] = 1 + r.Int32N(8)
		}
		a.counts = l.put(viewBytes(counts))
	}
	l.place(&s, &a)
	q := &sequence{d: l.d, s: l.slot()}
	step := l.timed(repeat, func() { l.d.attend(q, &a) })
	l.do(q.err)
	return step
}

// noise is n bytes of small random numbers of any 16- or 32-bit type.
func (l *lab) noise(r *rand.Rand, n int) cuda.Pointer {
	p := l.alloc(n)
	seed := l.slot().in.host[:min(n, 1<<20)]
	for i := range seed {
		seed[i] = byte(r.Uint32())
		if i%2 == 1 {
			seed[i] = seed[i]&0x83 | 0x38 // F16 and BF16 below 2
		}
	}
	l.do(l.d.ctx.CopyIn(p, seed, l.slot().stream))
	for have := len(seed); have < n && l.err == nil; have *= 2 {
		l.do(l.d.ctx.CopyWithin(p+cuda.Pointer(have), p, min(have, n-have), l.slot().stream))
	}
	l.do(l.d.ctx.Wait(l.slot().stream))
	return p
}
