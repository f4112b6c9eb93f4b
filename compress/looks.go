package compress

// looks say how much each token of a page matters: the importance that the page brings, or the attention that its turned queries give
// the token times its value's length.
type looks struct {
	pg   *page
	look []float32 // [planes, tokens]; nil: nothing says
	mean []float64 // [planes]
}

// begin gets ready for a page. taught is nil when the page teaches nothing.
func (l *looks) begin(pg *page, taught *lessons) {
	l.pg, l.look = pg, nil
	switch {
	case !pg.opt.Attention:
	case pg.told():
		l.look = pg.in.Importance
	case taught != nil:
		l.look = taught.look
	}
	if l.look != nil {
		l.means()
	}
}

// forget drops what the caller owns.
func (l *looks) forget() { l.look = nil }

func (l *looks) known() bool { return l.look != nil }

// at is the look of token i of a plane over the plane's mean: one on average.
func (l *looks) at(plane, i int) float64 {
	return float64(l.look[plane*l.pg.in.Tokens+l.pg.sinks+i]) / l.mean[plane]
}

// means is the mean over each plane's tokens behind the sinks, which get attention whatever they mean.
func (l *looks) means() {
	l.mean = grow(l.mean, l.pg.in.planes())
	for plane := range l.mean {
		sum := 0.0
		of := group(l.look, plane, l.pg.in.Tokens)[l.pg.sinks:]
		for _, x := range of {
			sum += float64(x)
		}
		l.mean[plane] = sum/float64(len(of)) + 1e-30
	}
}

// mostLook is larger than any look of a page whose looks are finite: it has fewer tokens. leastLook bounds from below how much less than
// the mean a token can matter.
const mostLook, leastLook = 1 << 40, 1e-3

// shares writes to dst, [n], what each token is of the core that its label names: as much as it is looked at. sum, [clusters], is scratch.
func (l *looks) shares(plane int, label []int32, dst, sum []float64) {
	clear(sum)
	for i, c := range label {
		if c == dropped {
			continue
		}
		dst[i] = leastLook
		if look := l.at(plane, i); look > leastLook && look <= mostLook { // what is no number weighs least
			dst[i] = look
		}
		sum[c] += dst[i]
	}
	for i, c := range label {
		if c != dropped {
			dst[i] /= sum[c]
		}
	}
}
