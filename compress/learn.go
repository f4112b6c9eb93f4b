package compress

// lessons are what the queries that come after a page get from its originals.
type lessons struct {
	set  future
	want []float32 // [planes, asks, dim], what each of the set gets
	look []float32 // [planes, tokens], the attention that each token gets times its value's length; 0 where nothing is priced by it
}

// learning is the phase that asks a page's queries, turned to positions behind it, of the originals.
type learning struct {
	pg     *page
	taught lessons
	task   func(worker, plane int)
}

func newLearning() *learning {
	l := new(learning)
	l.task = l.plane
	return l
}

// run returns nil when the page teaches nothing.
func (l *learning) run(pg *page) *lessons {
	if !pg.teaches() {
		return nil
	}
	l.pg = pg
	t, planes := &l.taught, pg.in.planes()
	t.set.learn(pg.in, pg.all)
	t.want = grow(t.want, planes*len(t.set.asks)*pg.in.Dim)
	t.look = grow(t.look, planes*pg.in.Tokens)
	pg.each(planes, l.task)
	return t
}

// plane does one plane.
func (l *learning) plane(worker, plane int) {
	in, t, a := l.pg.in, &l.taught, &l.pg.askers[worker]
	d, n, kv := in.Dim, len(t.set.asks), entriesOf(in, nil, plane)
	what := outputsOnly
	if l.pg.opt.Attention && !l.pg.told() {
		what = withLooks
	}
	look := group(t.look, plane, in.Tokens)
	clear(look)
	for from := 0; from < n; from += mostLanes {
		nq := min(mostLanes, n-from)
		got := a.ask(a.turned(&t.set, in, plane, from, nq), nq, kv, d, what)
		got.outputs(group(t.want, plane, n*d)[from*d:(from+nq)*d], d)
		if what == withLooks {
			a.looks(kv, d, look, nil)
		}
	}
	if what == withLooks {
		for i, length := range a.got.lengths[:in.Tokens] {
			look[i] *= length
		}
	}
}
