package compress

import "math"

// runMerge writes the cores.
func (w *work) runMerge(p *pool) {
	most := int32(0)
	for _, m := range w.cores {
		most = max(most, m)
	}
	w.out.setCores(w.sinks+int(most)+w.recent, w.in.rowBytes())
	p.run(&w.phase, w.in.planes(), w.mergeTask)
}

// merge writes the cores of one plane: the value is the mean of the members' values, the key points along the mean of
// their un-rotated keys, has their mean length and is rotated to their mean position. It goes over the tokens once, in the
// order of memory: a token that stands alone is copied, any other is added to the sums of its cluster, which is written
// when its last member has been seen.
func (w *work) merge(worker, plane int) {
	g := plane / w.heads
	m := int(w.cores[g])
	out := planeOf(w, plane)
	for i := range w.sinks {
		out.copy(i, i)
	}
	t := w.sumsOf(worker, plane, m)
	label, size := group(w.label, g, w.n), group(w.size, g, w.n)
	assign := group(w.out.Assign, plane, w.in.Tokens)
	w.out.Dropped[plane] = 0
	for i, l := range label {
		at := w.sinks + i
		switch {
		case l == dropped:
			assign[at] = dropped
			w.out.Dropped[plane]++
			t.drop(at)
			continue
		case size[l] == 1:
			out.copy(w.sinks+int(l), at)
			t.keep(at)
		default:
			c := t.cluster(l, size[l], i)
			t.add(c, i)
			if c.left == 0 {
				t.write(&out, w.sinks+int(l), c)
			}
		}
		assign[at] = int32(w.sinks) + l
	}
	for i := range w.recent {
		out.copy(w.sinks+m+i, w.sinks+w.n+i)
	}
	out.pad(w.sinks + m + w.recent)

	for i := range w.sinks {
		assign[i] = int32(i)
		t.keep(i)
	}
	for i := range w.recent {
		assign[w.sinks+w.n+i] = int32(w.sinks + m + i)
		t.keep(w.sinks + w.n + i)
	}
	w.out.Slots[plane] = int32(w.sinks + m + w.recent)
	w.out.Thresholds[plane] = w.threshold[g]
	w.out.KeySimilarity[plane] = float32(t.similarity / float64(w.in.Tokens))
	if t.measured {
		w.out.ValueError[plane] = t.valueError()
	}
}

// planeOut is one plane of the result.
type planeOut struct {
	w                *work
	plane, cores, rb int
	k, v             []byte
	counts           []int32
	bias, positions  []float32
}

func planeOf(w *work, plane int) planeOut {
	m, rb := w.out.Cores, w.in.rowBytes()
	return planeOut{w: w, plane: plane, cores: m, rb: rb,
		k: group(w.out.K, plane, m*rb), v: group(w.out.V, plane, m*rb),
		counts: group(w.out.Counts, plane, m), bias: group(w.out.Bias, plane, m), positions: group(w.out.Positions, plane, m)}
}

// copy makes token i core c, bit for bit.
func (o *planeOut) copy(c, i int) {
	copy(o.k[c*o.rb:], o.w.in.row(o.w.in.K, o.plane, i))
	copy(o.v[c*o.rb:], o.w.in.row(o.w.in.V, o.plane, i))
	o.counts[c], o.bias[c], o.positions[c] = 1, 0, float32(o.w.in.Positions[i])
}

// set writes a merged core.
func (o *planeOut) set(c int, count int32, position float64, k, v []float32) {
	in := o.w.in
	narrow(o.w.kernel, o.k[c*o.rb:(c+1)*o.rb], k, in.DType, scaleOf(in.KScale, o.plane))
	narrow(o.w.kernel, o.v[c*o.rb:(c+1)*o.rb], v, in.DType, scaleOf(in.VScale, o.plane))
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
