package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// merging is the phase that writes the cores.
type merging struct {
	pg    *page
	near  *similarities
	found *clusters
	out   *Result
	sums  []mergeSums // [workers]
	task  func(worker, plane int)
}

func newMerging(workers int) *merging {
	m := &merging{sums: make([]mergeSums, workers)}
	m.task = m.plane
	return m
}

// run fills out with a core for each cluster, and for each token at the edges of the page.
func (m *merging) run(pg *page, near *similarities, found *clusters, out *Result) {
	m.pg, m.near, m.found, m.out = pg, near, found, out
	most := int32(0)
	for _, cores := range found.cores {
		most = max(most, cores)
	}
	out.setCores(pg.sinks+int(most)+pg.recent, pg.in.rowBytes())
	pg.each(pg.in.planes(), m.task)
	m.out = nil
}

// plane writes the cores of one plane: the value is the mean of the members' values, the key points along the mean of
// their un-rotated keys, has their mean length and is rotated to their mean position. In all these means members weigh as they are
// looked at, where that is known. It goes over the tokens once, in the
// order of memory: a token that stands alone is copied, any other is added to the sums of its cluster, which is written
// when its last member has been seen.
func (m *merging) plane(worker, plane int) {
	pg, res := m.pg, m.out
	g, sinks := plane/pg.heads, pg.sinks
	cores := int(m.found.cores[g])
	out := planeOf(pg, res, plane)
	for i := range sinks {
		out.copy(i, i)
	}
	t := &m.sums[worker]
	t.begin(m, plane, cores)
	label, size := group(m.found.label, g, pg.n), group(m.found.size, g, pg.n)
	assign := group(res.Assign, plane, pg.in.Tokens)
	res.Dropped[plane] = 0
	for i, l := range label {
		at := sinks + i
		switch {
		case l == dropped:
			assign[at] = dropped
			res.Dropped[plane]++
			t.drop(at)
			continue
		case size[l] == 1:
			out.copy(sinks+int(l), at)
			t.keep(at)
		default:
			c := t.cluster(l, size[l], i)
			t.add(c, l, i)
			if c.left == 0 {
				t.write(&out, sinks+int(l), c)
			}
		}
		assign[at] = int32(sinks) + l
	}
	for i := range pg.recent {
		out.copy(sinks+cores+i, sinks+pg.n+i)
	}
	out.pad(sinks + cores + pg.recent)

	for i := range sinks {
		assign[i] = int32(i)
		t.keep(i)
	}
	for i := range pg.recent {
		assign[sinks+pg.n+i] = int32(sinks + cores + i)
		t.keep(sinks + pg.n + i)
	}
	res.Slots[plane] = int32(sinks + cores + pg.recent)
	res.Thresholds[plane] = m.found.threshold[g]
	res.KeySimilarity[plane] = float32(t.similarity / float64(pg.in.Tokens))
	if t.measured {
		res.ValueError[plane] = t.valueError()
	}
}

// planeOut is one plane of the result.
type planeOut struct {
	in               *Input
	kernel           *simd.Kernels
	plane, cores, rb int
	k, v             []byte
	counts           []int32
	bias, positions  []float32
}

func planeOf(pg *page, out *Result, plane int) planeOut {
	m, rb := out.Cores, pg.in.rowBytes()
	return planeOut{in: pg.in, kernel: pg.kernel, plane: plane, cores: m, rb: rb,
		k: group(out.K, plane, m*rb), v: group(out.V, plane, m*rb),
		counts: group(out.Counts, plane, m), bias: group(out.Bias, plane, m), positions: group(out.Positions, plane, m)}
}

// copy makes token i core c, bit for bit.
func (o *planeOut) copy(c, i int) {
	copy(o.k[c*o.rb:], o.in.row(o.in.K, o.plane, i))
	copy(o.v[c*o.rb:], o.in.row(o.in.V, o.plane, i))
	o.counts[c], o.bias[c], o.positions[c] = 1, 0, float32(o.in.Positions[i])
}

// set writes a merged core.
func (o *planeOut) set(c int, count int32, position float64, k, v []float32) {
	narrow(o.kernel, o.k[c*o.rb:(c+1)*o.rb], k, o.in.DType, scaleOf(o.in.KScale, o.plane))
	narrow(o.kernel, o.v[c*o.rb:(c+1)*o.rb], v, o.in.DType, scaleOf(o.in.VScale, o.plane))
	o.counts[c], o.bias[c], o.positions[c] = count, float32(math.Log(float64(count))), float32(position)
}

// pad fills the cores from c on with nothing: count 0, bias -Inf.
func (o *planeOut) pad(c int) {
	clear(o.k[c*o.rb:])
	clear(o.v[c*o.rb:])
	clear(o.counts[c:])
	clear(o.positions[c:])
	for i := c; i < o.cores; i++ {
		o.bias[i] = float32(math.Inf(-1))
	}
}
