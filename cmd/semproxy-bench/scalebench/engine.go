package scalebench

import (
	"container/heap"
	"math"
	"math/rand/v2"
)

// clock is a discrete-event simulation. What is to happen happens in the order of its times, in seconds, and at equal times
// in the order in which it was planned: the same seed gives the same run.
type clock struct {
	now     float64
	plans   plans
	planned int64
	random  *rand.Rand
}

func newClock(seed uint64) *clock { return &clock{random: rand.New(rand.NewPCG(seed, 0x5ca1e))} }

type plan struct {
	at    float64
	order int64
	do    func()
}

type plans []plan

func (p plans) Len() int { return len(p) }
func (p plans) Less(i, j int) bool {
	if p[i].at != p[j].at {
		return p[i].at < p[j].at
	}
	return p[i].order < p[j].order
}
func (p plans) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *plans) Push(x any)   { *p = append(*p, x.(plan)) }
func (p *plans) Pop() any {
	last := (*p)[len(*p)-1]
	(*p)[len(*p)-1] = plan{}
	*p = (*p)[:len(*p)-1]
	return last
}

// after has do called d seconds from now.
func (c *clock) after(d float64, do func()) {
	c.planned++
	heap.Push(&c.plans, plan{c.now + max(0, d), c.planned, do})
}

// runUntil lets happen what is planned up to that time.
func (c *clock) runUntil(end float64) {
	for len(c.plans) > 0 && c.plans[0].at <= end {
		next := heap.Pop(&c.plans).(plan)
		c.now = next.at
		next.do()
	}
	c.now = end
}

// exponential is a time between events of which rate happen a second.
func (c *clock) exponential(rate float64) float64 { return c.random.ExpFloat64() / rate }

// around is a time whose mean is mean and whose logarithm has the deviation spread.
func (c *clock) around(mean, spread float64) float64 {
	if spread == 0 {
		return mean
	}
	return mean * math.Exp(spread*c.random.NormFloat64()-spread*spread/2)
}

// station is servers that share one line: first come, first served.
type station struct {
	clock   *clock
	name    string
	servers int

	busy  int
	line  []func()
	used  float64 // seconds of all servers
	moved float64 // bytes, of a link
	since float64
}

func (c *clock) station(name string, servers int) *station {
	return &station{clock: c, name: name, servers: servers}
}

func (s *station) count() {
	s.used += float64(s.busy) * (s.clock.now - s.since)
	s.since = s.clock.now
}

// take calls do as soon as a server is free, which is do's until it is given back.
func (s *station) take(do func()) {
	if s.busy == s.servers {
		s.line = append(s.line, do)
		return
	}
	s.count()
	s.busy++
	do()
}

// takeFirst is take, before all who wait.
func (s *station) takeFirst(do func()) {
	if s.busy < s.servers {
		s.take(do)
		return
	}
	s.line = append(s.line, nil)
	copy(s.line[1:], s.line)
	s.line[0] = do
}

// occupy has others use as much of the station as share says, in servers, in slices of so many seconds. They make up for what
// they had to wait.
func (s *station) occupy(share, slice float64) {
	for left := share; left > 0; left-- {
		every, at := slice/min(1, left), s.clock.now
		var next, work func()
		work = func() {
			s.clock.after(slice, func() {
				if at += every; at <= s.clock.now { // it has waited too long to let go
					work()
					return
				}
				s.give()
				s.clock.after(at-s.clock.now, next)
			})
		}
		next = func() { s.takeFirst(work) }
		next()
	}
}

// give gives a server back, or to the next in the line.
func (s *station) give() {
	if len(s.line) > 0 {
		next := s.line[0]
		s.line[0] = nil
		s.line = s.line[1:]
		next()
		return
	}
	s.count()
	s.busy--
}

// reset begins to count anew.
func (s *station) reset() { s.used, s.moved, s.since = 0, 0, s.clock.now }

// utilisation is the share of its servers' time that was used in the last seconds.
func (s *station) utilisation(seconds float64) float64 {
	s.count()
	return s.used / seconds / float64(s.servers)
}

// leg is one step of a page's way: a time at a station, and of a processor that the station shares with others. A leg
// without a station is a wait.
type leg struct {
	at, host *station
	seconds  float64
	bytes    float64
}

// walk takes a page along its way and then calls done.
func (c *clock) walk(legs []leg, done func()) {
	if len(legs) == 0 {
		done()
		return
	}
	l, rest := legs[0], legs[1:]
	if l.at == nil {
		c.after(l.seconds, func() { c.walk(rest, done) })
		return
	}
	l.at.take(func() {
		work := func() {
			c.after(l.seconds, func() {
				l.at.moved += l.bytes
				if l.host != nil {
					l.host.give()
				}
				l.at.give()
				c.walk(rest, done)
			})
		}
		if l.host != nil {
			l.host.take(work)
			return
		}
		work()
	})
}
