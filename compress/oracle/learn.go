package oracle

import (
	"math"

	"github.com/semproxy/semproxy/compress"
)

// asked is what a page's queries, turned to positions behind it, get from the originals.
type asked struct {
	queries [][][]float64 // [layer x head][query][dim], turned
	want    [][][]float64 // the outputs
	look    [][]float64   // [layer x head][token]
}

// learn turns and asks the queries that teach: at most 64 a KV head, of all but every fourth query, each turned to two positions
// that the multiples of the golden section scatter over the 512 behind the page.
func learn(p *Page, opt compress.Options, whole bool) *asked {
	out := &asked{}
	if p.Q == nil || whole || opt.Rest == compress.Drop || (!opt.Attention && !opt.Fit && !opt.Fold) {
		return out
	}
	heads, last := len(p.K[0]), float64(p.Positions[len(p.Positions)-1])+float64(p.Behind)
	window := len(p.Q[0][0])
	var rows []int
	for i := range window {
		if window < 4 || i%4 != 3 {
			rows = append(rows, i)
		}
	}
	for l := range p.K {
		per := len(p.Q[l]) / heads
		for h := range heads {
			total := per * len(rows) * 2
			var qs [][]float64
			for k := range min(64, total) {
				s := k * total / min(64, total)
				turn := s % (2 * len(rows))
				i := rows[turn/2]
				_, frac := math.Modf(float64(turn) * 0.6180339887498949)
				q := append([]float64(nil), p.Q[l][h*per+s/(2*len(rows))][i]...)
				rotate(q, p.Freq, math.Floor(last+1+512*frac)-p.askedAt(i, window), p.Pairs)
				qs = append(qs, q)
			}
			look := make([]float64, len(p.Positions))
			var want [][]float64
			for _, q := range qs {
				w, o := attend(q, p.K[l][h], p.V[l][h], nil)
				want = append(want, o)
				for i, x := range w {
					look[i] += x * math.Sqrt(dot(p.V[l][h][i], p.V[l][h][i]))
				}
			}
			out.queries, out.want = append(out.queries, qs), append(out.want, want)
			if opt.Attention {
				out.look = append(out.look, look)
			}
		}
	}
	return out
}

func (p *Page) askedAt(i, window int) float64 {
	if p.QPositions != nil {
		return float64(p.QPositions[i])
	}
	if at := len(p.Positions) - window + i; at >= 0 {
		return float64(p.Positions[at])
	}
	return float64(p.Positions[0]) - float64(window-len(p.Positions)-i)
}

// attend is softmax(q.k/sqrt(d) + bias) and its output.
func attend(q []float64, k, v [][]float64, bias []float64) (w, out []float64) {
	w, out = make([]float64, len(k)), make([]float64, len(q))
	top, sum := math.Inf(-1), 0.0
	for i := range k {
		w[i] = dot(q, k[i]) / math.Sqrt(float64(len(q)))
		if bias != nil {
			w[i] += bias[i]
		}
		top = max(top, w[i])
	}
	for i := range w {
		w[i] = math.Exp(w[i] - top)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
		for j := range out {
			out[j] += w[i] * v[i][j]
		}
	}
	return w, out
}

// fit folds the merged cores of one head, fits their keys, and fits the values of those that move, as the options say.
func (a *asked) fit(p *Page, l, h, sinks int, out *Head, moves []bool, opt compress.Options) {
	out.Bias = make([]float64, len(out.Count))
	for c, n := range out.Count {
		out.Bias[c] = math.Log(float64(n))
	}
	if a.queries == nil {
		return
	}
	qs, d := a.queries[l*len(p.K[0])+h], len(p.K[0][0][0])
	n := len(qs)
	aims := aim(qs, d)
	if opt.Fold {
		fold(out, qs, aims, d)
	}
	if !opt.Fit {
		return
	}
	fitKeys(p.K[l][h], out, sinks, qs, aims)
	x, rest, all := make([][]float64, n), make([][]float64, n), 0.0
	for i, q := range qs {
		w, o := attend(q, out.K, out.V, out.Bias)
		rest[i] = make([]float64, d)
		for j := range rest[i] {
			rest[i][j] = a.want[l*len(p.K[0])+h][i][j] - o[j]
		}
		all += dot(w, w)
		x[i] = w
		for c := range out.Count {
			if !moves[c] {
				x[i][c] = 0
			}
		}
	}
	gram := square(n)
	for i := range n {
		for j := range n {
			gram[i][j] = dot(x[i], x[j])
		}
	}
	z := solveRidge(gram, rest, 6.4*all/float64(n*len(out.K)))
	for c := range out.V {
		for i := range n {
			for j := range d {
				out.V[c][j] += x[i][c] * z[i][j]
			}
		}
	}
}

// aim gives for each query the key that adds one to its logit and little to those of the others: the rows of (Q Q^T + l I)^-1 Q.
func aim(qs [][]float64, d int) [][]float64 {
	n := len(qs)
	gram, scaled, trace := square(n), make([][]float64, n), 0.0
	for i := range n {
		for j := range n {
			gram[i][j] = dot(qs[i], qs[j]) / float64(d)
		}
		for _, x := range qs[i] {
			scaled[i] = append(scaled[i], x/math.Sqrt(float64(d)))
		}
		trace += gram[i][i]
	}
	return solveRidge(gram, scaled, 0.3*trace/float64(d))
}

// fitKeys moves each merged key so that a query's logit, with the bias, comes near that of the members together, by two at most.
func fitKeys(k [][]float64, out *Head, sinks int, qs, aims [][]float64) {
	logit := func(q, k []float64) float64 { return dot(q, k) / math.Sqrt(float64(len(q))) }
	for c := range out.K {
		if out.Count[c] < 2 {
			continue
		}
		moved := append([]float64(nil), out.K[c]...)
		for i, q := range qs {
			sum, own := 0.0, logit(q, out.K[c])
			for at, label := range out.Label {
				if label == c-sinks {
					sum += math.Exp(logit(q, k[sinks+at]) - own)
				}
			}
			lack := min(max(math.Log(sum)-out.Bias[c], -2), 2)
			for j := range moved {
				moved[j] += lack * aims[i][j]
			}
		}
		out.K[c] = moved
	}
}

// fold moves the bias of merged cores into their keys, along the sum of what aim gives.
func fold(out *Head, qs, aims [][]float64, d int) {
	n, f := len(qs), make([]float64, d)
	for i := range qs {
		for j := range f {
			f[j] += aims[i][j]
		}
	}
	mean, squares := 0.0, 0.0
	for _, q := range qs {
		x := dot(q, f) / math.Sqrt(float64(d))
		mean += x / float64(n)
		squares += x * x / float64(n)
	}
	scale := 1 / mean
	if variance := squares*scale*scale - 1; variance > 1 {
		scale /= variance
	}
	for c := range out.K {
		if out.Count[c] > 1 {
			for j := range f {
				out.K[c][j] += out.Bias[c] * scale * f[j]
			}
		}
		out.Bias[c] = 0
	}
}

func square(n int) [][]float64 {
	out := make([][]float64, n)
	for i := range out {
		out[i] = make([]float64, n)
	}
	return out
}

// solveRidge solves (a + lambda I) z = b by elimination without pivots: a is positive semidefinite.
func solveRidge(a, b [][]float64, lambda float64) [][]float64 {
	n := len(a)
	for i := range n {
		a[i][i] += lambda + 1e-12
		b[i] = append([]float64(nil), b[i]...)
	}
	for i := range n {
		for r := i + 1; r < n; r++ {
			f := a[r][i] / a[i][i]
			for c := i; c < n; c++ {
				a[r][c] -= f * a[i][c]
			}
			for c := range b[r] {
				b[r][c] -= f * b[i][c]
			}
		}
	}
	for i := n - 1; i >= 0; i-- {
		for c := range b[i] {
			for r := i + 1; r < n; r++ {
				b[i][c] -= a[i][r] * b[r][c]
			}
			b[i][c] /= a[i][i]
		}
	}
	return b
}
