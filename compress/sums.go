package compress

import "math"

// mergeSums is what one worker adds up while it merges a plane.
type mergeSums struct {
	m        *merging
	plane    int
	measured bool // the values' error is asked for

	similarity float64 // of every token's key to its core's
	all, lost  float64 // squares of the values, and of what differs from their cores'

	row    []float32 // [dim], one key or value
	shares []float64 // [n], what each token is of its core; empty: all members are as much
	weight []float64 // [clusters], scratch
	sums   []float32 // of the clusters in open
	open   []cluster
	idle   []int32 // places in open, counted from one, that are free again
	slot   []int32 // [clusters], each cluster's place in open, counted from one; 0: none yet
	turning
}

// cluster holds the sums of the members seen so far.
type cluster struct {
	at    int // where its three rows are: key, unit key, value
	first int // member
	base  *chunk
	size  int32 // members
	left  int32 // members to come
	// length sums up the members' key lengths, distance their positions from the base's first, squares their values' squares, all as
	// their shares say.
	length, distance, squares float64
}

// begin gets ready for a plane with that many clusters.
func (t *mergeSums) begin(m *merging, plane, clusters int) {
	t.m, t.plane, t.measured = m, plane, len(m.out.ValueError) > 0
	t.similarity, t.all, t.lost = 0, 0, 0
	t.row = grow(t.row, m.pg.in.Dim)
	t.slot = grow(t.slot, clusters)
	clear(t.slot)
	t.open, t.idle = t.open[:0], t.idle[:0]
	t.shares = t.shares[:0]
	if near := m.near; near != nil && near.looks.known() {
		t.shares, t.weight = grow(t.shares, m.pg.n), grow(t.weight, clusters)
		near.looks.shares(plane, group(m.found.label, plane/m.pg.heads, m.pg.n), t.shares, t.weight)
	}
}

// share is what token i is of its cluster.
func (t *mergeSums) share(c *cluster, i int) float64 {
	if len(t.shares) > 0 {
		return t.shares[i]
	}
	return 1 / float64(c.size)
}

// cluster is the one with label l and that many members, token i being the next.
func (t *mergeSums) cluster(l, size int32, i int) *cluster {
	if s := t.slot[l]; s > 0 {
		return &t.open[s-1]
	}
	d, near := t.m.pg.in.Dim, t.m.near
	if n := len(t.idle); n > 0 {
		t.slot[l] = t.idle[n-1]
		t.idle = t.idle[:n-1]
	} else {
		t.open = append(t.open, cluster{at: 3 * d * len(t.open)})
		t.slot[l] = int32(len(t.open))
		if need := 3 * d * len(t.open); need > len(t.sums) {
			t.sums = append(t.sums, make([]float32, need)...)
		}
	}
	c := &t.open[t.slot[l]-1]
	*c = cluster{at: c.at, first: i, base: near.chunkAt(i), size: size, left: size}
	clear(t.sums[c.at : c.at+3*d])
	return c
}

// add takes token i into its cluster, which has label l.
func (t *mergeSums) add(c *cluster, l int32, i int) {
	pg, d := t.m.pg, t.m.pg.in.Dim
	in, norm := pg.in, t.m.near.norm[t.plane*pg.n+i]
	key, unit, value := t.sums[c.at:c.at+d], t.sums[c.at+d:c.at+2*d], t.sums[c.at+2*d:c.at+3*d]
	distance := int(pg.position(i) - pg.position(c.base.lo))
	share := t.share(c, i)
	by := float32(share)
	t.addKey(key, unit, i, distance, by, 1/(norm+1e-9))
	c.length += share * float64(norm)
	c.distance += share * float64(distance)
	row := in.row(in.V, t.plane, pg.sinks+i)
	switch {
	case t.measured:
		c.squares += share * t.square(pg.sinks+i)
		pg.kernel.Axpy(value, t.row, by)
	case pg.half != nil:
		pg.half.Axpy(value, row, by)
	default:
		widen(pg.kernel, t.row, row, in.DType, scaleOf(in.VScale, t.plane))
		pg.kernel.Axpy(value, t.row, by)
	}
	c.left--
	if c.left == 0 {
		t.idle = append(t.idle, t.slot[l])
	}
}

// addKey turns the key of token i back by a distance and adds it to key, weighed by kw, and to unit, weighed by uw.
func (t *mergeSums) addKey(key, unit []float32, i, distance int, kw, uw float32) {
	pg := t.m.pg
	if pg.fused(distance) {
		cos, sin := pg.at(&t.turning, distance)
		pg.half.UnrotateAdd(key, unit, pg.in.row(pg.in.K, t.plane, pg.sinks+i), cos, sin, kw, uw)
		return
	}
	pg.unrotate(&t.turning, t.row, t.plane, i, distance)
	pg.kernel.Axpy2(key, unit, t.row, kw, uw)
}

// write makes a cluster whose members have all been seen a core.
func (t *mergeSums) write(out *planeOut, core int, c *cluster) {
	pg, d := t.m.pg, t.m.pg.in.Dim
	in, kn := pg.in, pg.kernel
	key, unit, value := t.sums[c.at:c.at+d], t.sums[c.at+d:c.at+2*d], t.sums[c.at+2*d:c.at+3*d]
	// key is the mean key; its direction, whatever its length, is what the members are compared with.
	scale := normalize(kn, key)
	similarity := float64(kn.Dot(unit, key))
	if !pg.opt.PlainMean {
		scale = float32(c.length)
	}
	pg.turn(kn, &t.turning, key, c.distance, scale)
	if s := kn.Dot(key, key); s != s || math.IsInf(similarity, 0) || similarity != similarity {
		// Keys near float32's largest number overflow when they are turned. No model makes them; the first member stands in.
		widen(kn, key, in.row(in.K, t.plane, pg.sinks+c.first), in.DType, scaleOf(in.KScale, t.plane))
		similarity = 0
	}
	out.set(core, c.size, float64(pg.position(c.base.lo))+c.distance, key, value)
	t.similarity += similarity
	if t.measured {
		n := float64(c.size)
		t.all += n * c.squares
		t.lost += n * max(c.squares-float64(kn.Dot(value, value)), 0)
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

// square leaves a token's value in row and returns the sum of its squares.
func (t *mergeSums) square(i int) float64 {
	in, kn := t.m.pg.in, t.m.pg.kernel
	widen(kn, t.row, in.row(in.V, t.plane, i), in.DType, scaleOf(in.VScale, t.plane))
	return float64(kn.Dot(t.row, t.row))
}

// valueError compares the values with those of their cores. With the mean m of n values v, the squared error of a cluster is
// n (mean |v|^2 - |m|^2), both means as the shares say.
func (t *mergeSums) valueError() float32 {
	if t.all == 0 {
		return 0
	}
	return float32(math.Sqrt(t.lost / t.all))
}
