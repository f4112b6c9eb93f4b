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
// their un-rotated keys, has their mean length and is rotated to their mean position.
func (w *work) merge(worker, plane int) {
	g := plane / w.heads
	m := int(w.cores[g])
	out := planeOf(w, plane)
	for i := range w.sinks {
		out.copy(i, i)
	}
	a := &w.arena[worker]
	a.resize(w.in.Dim)
	start, member := group(w.start, g, w.n+1), group(w.member, g, w.n)
	similarity := float64(w.sinks + w.recent)
	for c := range m {
		ms := member[start[c]:start[c+1]]
		if len(ms) == 1 {
			out.copy(w.sinks+c, w.sinks+int(ms[0]))
			similarity++
		} else {
			similarity += w.mergeCluster(a, out, plane, w.sinks+c, ms)
		}
	}
	for i := range w.recent {
		out.copy(w.sinks+m+i, w.sinks+w.n+i)
	}
	out.pad(w.sinks + m + w.recent)

	if len(w.out.ValueError) > 0 {
		w.out.ValueError[plane] = w.valueError(a, plane)
	}
	w.out.Slots[plane] = int32(w.sinks + m + w.recent)
	w.out.Thresholds[plane] = w.threshold[g]
	w.out.KeySimilarity[plane] = float32(similarity / float64(w.in.Tokens))
	assign := group(w.out.Assign, plane, w.in.Tokens)
	for i := range w.sinks {
		assign[i] = int32(i)
	}
	w.out.Dropped[plane] = 0
	for i, l := range group(w.label, g, w.n) {
		if l == dropped {
			assign[w.sinks+i] = dropped
			w.out.Dropped[plane]++
		} else {
			assign[w.sinks+i] = int32(w.sinks) + l
		}
	}
	for i := range w.recent {
		assign[w.sinks+w.n+i] = int32(w.sinks + m + i)
	}
}

// valueError compares the values of the tokens between sinks and recent window with those of their clusters. With the mean
// m of n values v, the squared error is sum |v|^2 - n |m|^2.
func (w *work) valueError(a *arena, plane int) float32 {
	g, scale := plane/w.heads, scaleOf(w.in.VScale, plane)
	start, member := group(w.start, g, w.n+1), group(w.member, g, w.n)
	all, lost := 0.0, 0.0
	square := func(i int) float64 {
		widen(w.kernel, a.row, w.in.row(w.in.V, plane, i), w.in.DType, scale)
		return float64(w.kernel.Dot(a.row, a.row))
	}
	for i := range w.sinks {
		all += square(i)
	}
	for i := range w.recent {
		all += square(w.sinks + w.n + i)
	}
	for c := range int(w.cores[g]) {
		ms := member[start[c]:start[c+1]]
		clear(a.val)
		squares := 0.0
		for _, i := range ms {
			squares += square(w.sinks + int(i))
			w.kernel.Axpy(a.val, a.row, 1)
		}
		all += squares
		lost += max(squares-float64(w.kernel.Dot(a.val, a.val))/float64(len(ms)), 0)
	}
	if w.opt.Rest == Drop && !w.whole {
		for i, l := range group(w.label, g, w.n) {
			if l == dropped {
				s := square(w.sinks + i)
				all += s
				lost += s
			}
		}
	}
	if all == 0 {
		return 0
	}
	return float32(math.Sqrt(lost / all))
}

func (a *arena) resize(d int) {
	a.row, a.acc, a.val, a.unit = grow(a.row, d), grow(a.acc, d), grow(a.val, d), grow(a.unit, d)
}

// mergeCluster merges tokens ms of a plane, all of one chunk, into core c and returns the sum of their similarities to it.
func (w *work) mergeCluster(a *arena, out planeOut, plane, c int, ms []int32) float64 {
	in := w.in
	norms, positions := group(w.norm, plane, w.n), in.Positions[w.sinks:]
	ch := &w.chunks[w.chunkOf[ms[0]]]
	clear(a.acc)
	clear(a.val)
	clear(a.unit)
	length, distance := 0.0, 0.0
	vscale := scaleOf(in.VScale, plane)
	inv := 1 / float32(len(ms))
	for _, i := range ms {
		w.unrotate(a, a.row, plane, ch, int(i))
		w.kernel.Axpy2(a.acc, a.unit, a.row, inv, 1/(norms[i]+1e-9))
		length += float64(norms[i])
		distance += float64(positions[i] - positions[ch.lo])
		value := in.row(in.V, plane, w.sinks+int(i))
		if w.half != nil {
			w.half.Axpy(a.val, value, inv)
		} else {
			widen(w.kernel, a.row, value, in.DType, vscale)
			w.kernel.Axpy(a.val, a.row, inv)
		}
	}
	distance /= float64(len(ms))
	// acc is the mean key; its direction, whatever its length, is what the members are compared with.
	scale := normalize(w.kernel, a.acc)
	similarity := float64(w.kernel.Dot(a.unit, a.acc))
	if !w.opt.PlainMean {
		scale = float32(length * float64(inv))
	}
	w.turn(w.kernel, a, a.acc, distance, scale)
	if s := w.kernel.Dot(a.acc, a.acc); s != s || math.IsInf(similarity, 0) || similarity != similarity {
		// Keys near float32's largest number overflow when they are turned. No model makes them; the first member stands in.
		widen(w.kernel, a.acc, in.row(in.K, plane, w.sinks+int(ms[0])), in.DType, scaleOf(in.KScale, plane))
		similarity = 0
	}
	out.set(c, int32(len(ms)), float64(positions[ch.lo])+distance, a.acc, a.val)
	return similarity
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
