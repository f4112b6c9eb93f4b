package gpu

import (
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// attended reports whether the page's queries choose the exact tokens.
func (t *task) attended() bool { return t.plan != nil && t.plan.flags&flagAttended != 0 }

// looks reports whether queries look at the tokens: the page's own, or those that teach.
func (t *task) looks() bool {
	return t.attended() || (t.plan != nil && t.plan.flags&(flagLooked|flagImportant) == flagLooked)
}

// lookers is the number of queries of a KV head that look.
func (t *task) lookers() int {
	if t.attended() {
		return t.plan.last.QHeads / t.in.Heads * t.plan.last.QWindow
	}
	return t.plan.teach.QWindow
}

// fits reports whether keys of merged cores and values are fitted.
func (t *task) fits() bool { return t.plan != nil && t.plan.flags&flagFit != 0 }

// folds reports whether the bias of merged cores goes into their keys.
func (t *task) folds() bool { return t.plan != nil && t.plan.flags&flagFold != 0 }

// aims reports whether the queries that teach move keys.
func (t *task) aims() bool { return t.fits() || t.folds() }

// mostQueries is the largest number of queries of a KV head whose softmax is kept.
func (t *task) mostQueries() (n int) {
	if t.looks() {
		n = t.lookers()
	}
	return max(n, t.plan.teach.QWindow)
}

// measureLearn adds up what a task needs to learn of queries and of importance.
func (t *task) measureLearn(in, work *sizer, multiprocessors int) {
	p, x := t.plan, t.in
	planes := x.Layers * x.Heads
	in.add(len(p.teach.Q), 1)
	in.add(len(p.last.Q), 1)
	if p.flags&flagImportant != 0 {
		in.add(len(x.Importance), 4)
	}
	if t.looks() {
		work.add(planes*x.Tokens, 4)
	}
	work.add(planes, 8)
	work.add(planes*t.mostQueries(), 8)
	n := planes * p.teach.QWindow * x.Dim
	if t.aims() {
		work.add(n, 8)
		work.add(n, 4)
	}
	if t.fits() {
		work.add(n, 4)
		work.add(n, 4)
		t.lessons = t.partsOf(p.teach.QWindow, x.Tokens, multiprocessors)
		work.add(t.lessons, 1)
	}
}

// fillLearn says where that will be.
func (t *task) fillLearn(put func([]byte) cuda.Pointer, scratch func(n, elem int) cuda.Pointer) {
	p, x, j := t.plan, t.in, &t.dev
	planes := x.Layers * x.Heads
	j.teach, j.asks = put(p.teach.Q), int32(p.teach.QWindow)
	j.q, j.qdtype = j.teach, int32(compress.F32)
	if last := put(p.last.Q); t.attended() {
		j.q, j.qdtype = last, int32(p.last.QDType)
	}
	if t.looks() {
		j.queries, j.looks = int32(t.lookers()), scratch(planes*x.Tokens, 4)
	}
	j.softmax = scratch(planes*t.mostQueries(), 8)
	if p.flags&flagImportant != 0 {
		j.looks = put(viewBytes(x.Importance))
	}
	j.meanLook = scratch(planes, 8)
	n := planes * p.teach.QWindow * x.Dim
	if t.aims() {
		j.solved, j.aims = scratch(n, 8), scratch(n, 4)
	}
	if t.fits() {
		j.want, j.rest = scratch(n, 4), scratch(n, 4)
		t.want = attend{q: j.teach, k: j.k, v: j.v, kscale: j.kscale, vscale: j.vscale, dtype: int32(x.DType), qdtype: int32(compress.F32),
			len: int32(x.Tokens), out: j.want, part: scratch(t.lessons, 1)}
		t.rest = t.want
		t.rest.out = j.rest
	}
}
