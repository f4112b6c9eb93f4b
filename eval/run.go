package eval

import (
	"context"
	"runtime"
	"sync"

	"github.com/semproxy/semproxy/compress"
)

// Plan says what to compare.
type Plan struct {
	Methods  []string                 // specs as Build takes them
	Ratios   []float64                // kept tokens per layer and head, in (0, 1]
	Workers  int                      // cases at a time; 0: one per processor for a small model, else one
	Boundary func(ids []int32) []byte // one byte per token, non-zero where it ends a clause; or nil
	Progress func(done, total int)    // of cases; called from one goroutine at a time; or nil
	Step     func()                   // called after each prefill and each method at each ratio, from any goroutine; or nil
}

// Steps is how often Step is called for a number of cases.
func (p *Plan) Steps(cases int) int { return cases * (1 + len(p.Methods)*len(p.Ratios)) }

func (p *Plan) step() {
	if p.Step != nil {
		p.Step()
	}
}

// lastQueries is how many of a context's last queries a method sees, and errorQueries how many of the tokens after it measure
// the attention error.
const (
	lastQueries  = 32
	errorQueries = 16
)

// smallModel is the number of parameters up to which cases run side by side rather than one product spread out.
const smallModel = 64 << 20

// Run measures every method at every ratio on every case. A context is prefilled once for all of them. The first row of
// the report is the full cache.
func Run(ctx context.Context, m *Model, cases []Case, plan Plan) (*Report, error) {
	if len(cases) == 0 {
		return nil, badData("no cases: the texts are too short for the context, or the files are empty")
	}
	for _, r := range plan.Ratios {
		if !(r > 0 && r <= 1) {
			return nil, badMethod("ratio must be in (0, 1], got %v", r)
		}
	}
	workers := plan.Workers
	if workers <= 0 {
		workers = 1
		if m.Parameters() <= smallModel {
			workers = runtime.GOMAXPROCS(0)
		}
	}
	workers = min(workers, len(cases))
	var runners []*runner
	defer func() {
		for _, r := range runners {
			r.comp.Close()
		}
	}()
	for range workers {
		r, err := newRunner(m, &plan, max(runtime.GOMAXPROCS(0)/workers, 1))
		if err != nil {
			return nil, err
		}
		runners = append(runners, r)
	}
	all := make([][]measure, len(cases))
	next := make(chan int)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	done := 0
	var wait sync.WaitGroup
	for _, r := range runners {
		wait.Go(func() {
			for i := range next {
				got, err := r.measure(ctx, &cases[i])
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				all[i] = got
				done++
				if plan.Progress != nil {
					plan.Progress(done, len(cases))
				}
				mu.Unlock()
			}
		})
	}
feed:
	for i := range cases {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return summarize(&plan, cases, all), nil
}

// runner measures one case at a time.
type runner struct {
	plan    *Plan
	session *Session
	comp    *compress.Compressor
	methods []Method
	mass    bool
	cores   Cores
}

// newRunner builds methods of its own, since they keep buffers, on a compressor of one worker, so that times are per core.
func newRunner(m *Model, plan *Plan, inner int) (*runner, error) {
	r := &runner{plan: plan, session: m.NewSession(inner), comp: compress.New(1)}
	for _, spec := range plan.Methods {
		method, err := Build(spec, r.comp)
		if err != nil {
			r.comp.Close()
			return nil, err
		}
		r.methods = append(r.methods, method)
		r.mass = r.mass || needsMass(spec)
	}
	return r, nil
}
