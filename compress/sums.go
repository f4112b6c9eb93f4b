package compress

import "math"

// mergeSums is what is added up while one plane is merged.
type mergeSums struct {
	w        *work
	a        *arena
	plane    int
	measured bool // the values' error is asked for

	similarity float64 // of every token's key to its core's
	all, lost  float64 // squares of the values, and of what differs from their cores'
}

// cluster holds the sums of the members seen so far.
type cluster struct {
	at    int // where its three rows are: key, unit key, value
	first int // member
	base  *chunk
	inv   float32 // one over the number of members
	left  int32   // members to come
	// length sums up the members' key lengths, distance their positions from the base's first, squares their values' squares.
	length, distance, squares float64
}

func (w *work) sumsOf(worker, plane, clusters int) *mergeSums {
	a := &w.arena[worker]
	a.row = grow(a.row, w.in.Dim)
	a.slot = grow(a.slot, clusters)
	clear(a.slot)
	a.open, a.idle = a.open[:0], a.idle[:0]
	a.mergeSums = mergeSums{w: w, a: a, plane: plane, measured: len(w.out.ValueError) > 0}
	return &a.mergeSums
}

// cluster is the one with label l and that many members, token i being the next.
func (t *mergeSums) cluster(l, size int32, i int) *cluster {
	a := t.a
	if s := a.slot[l]; s > 0 {
		return &a.open[s-1]
	}
	d := t.w.in.Dim
	if n := len(a.idle); n > 0 {
		a.slot[l] = a.idle[n-1]
		a.idle = a.idle[:n-1]
	} else {
		a.open = append(a.open, cluster{at: 3 * d * len(a.open)})
		a.slot[l] = int32(len(a.open))
		if need := 3 * d * len(a.open); need > len(a.sums) {
			a.sums = append(a.sums, make([]float32, need)...)
		}
	}
	c := &a.open[a.slot[l]-1]
	*c = cluster{at: c.at, first: i, base: &t.w.chunks[t.w.chunkOf[i]], left: size, inv: 1 / float32(size)}
	clear(a.sums[c.at : c.at+3*d])
	return c
}

// add takes token i into its cluster.
func (t *mergeSums) add(c *cluster, i int) {
	w, a, d := t.w, t.a, t.w.in.Dim
	in, norm := w.in, w.norm[t.plane*w.n+i]
	key, unit, value := a.sums[c.at:c.at+d], a.sums[c.at+d:c.at+2*d], a.sums[c.at+2*d:c.at+3*d]
	distance := int(positionOf(w, i) - positionOf(w, c.base.lo))
	w.addKey(a, key, unit, t.plane, i, distance, c.inv, 1/(norm+1e-9))
	c.length += float64(norm)
	c.distance += float64(distance)
	row := in.row(in.V, t.plane, w.sinks+i)
	switch {
	case t.measured:
		c.squares += t.square(w.sinks + i)
		w.kernel.Axpy(value, a.row, c.inv)
	case w.half != nil:
		w.half.Axpy(value, row, c.inv)
	default:
		widen(w.kernel, a.row, row, in.DType, scaleOf(in.VScale, t.plane))
		w.kernel.Axpy(value, a.row, c.inv)
	}
	c.left--
	if c.left == 0 {
		a.idle = append(a.idle, a.slot[w.label[t.plane/w.heads*w.n+i]])
	}
}

// addKey turns the key of token i back by a distance and adds it to key, weighed by kw, and to unit, weighed by uw.
func (w *work) addKey(a *arena, key, unit []float32, plane, i, distance int, kw, uw float32) {
	if w.fused(distance) {
		cos, sin := w.at(a, distance)
		w.half.UnrotateAdd(key, unit, w.in.row(w.in.K, plane, w.sinks+i), cos, sin, kw, uw)
		return
	}
	w.unrotate(a, a.row, plane, i, distance)
	w.kernel.Axpy2(key, unit, a.row, kw, uw)
}

// write makes a cluster whose members have all been seen a core.
func (t *mergeSums) write(out *planeOut, core int, c *cluster) {
	w, a, d := t.w, t.a, t.w.in.Dim
	in := w.in
	key, unit, value := a.sums[c.at:c.at+d], a.sums[c.at+d:c.at+2*d], a.sums[c.at+2*d:c.at+3*d]
	n := math.Round(1 / float64(c.inv))
	distance := c.distance / n
	// key is the mean key; its direction, whatever its length, is what the members are compared with.
	scale := normalize(w.kernel, key)
	similarity := float64(w.kernel.Dot(unit, key))
	if !w.opt.PlainMean {
		scale = float32(c.length * float64(c.inv))
	}
	w.turn(w.kernel, a, key, distance, scale)
	if s := w.kernel.Dot(key, key); s != s || math.IsInf(similarity, 0) || similarity != similarity {
		// Keys near float32's largest number overflow when they are turned. No model makes them; the first member stands in.
		widen(w.kernel, key, in.row(in.K, t.plane, w.sinks+c.first), in.DType, scaleOf(in.KScale, t.plane))
		similarity = 0
	}
	out.set(core, int32(n), float64(positionOf(w, c.base.lo))+distance, key, value)
	t.similarity += similarity
	if t.measured {
		t.all += c.squares
		t.lost += max(c.squares-n*float64(w.kernel.Dot(value, value)), 0)
	}
}

// keep counts a token that is a core of its own; drop one that no core stands for. i counts from the first token.
func (t *mergeSums) keep(i int) {
	t.similarity++
	if t.measured {
		t.all += t.square(i)
	}
}

func (t *mergeSums) drop(i int) {
	if t.measured {
		s := t.square(i)
		t.all += s
		t.lost += s
	}
}

// square leaves a token's value in the arena's row and returns the sum of its squares.
func (t *mergeSums) square(i int) float64 {
	w, a := t.w, t.a
	widen(w.kernel, a.row, w.in.row(w.in.V, t.plane, i), w.in.DType, scaleOf(w.in.VScale, t.plane))
	return float64(w.kernel.Dot(a.row, a.row))
}

// valueError compares the values with those of their cores. With the mean m of n values v, the squared error of a cluster is
// sum |v|^2 - n |m|^2.
func (t *mergeSums) valueError() float32 {
	if t.all == 0 {
		return 0
	}
	return float32(math.Sqrt(t.lost / t.all))
}
