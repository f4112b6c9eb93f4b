package scalebench

import (
	"math"
	"testing"
)

// wait is the mean time in the line of a queue with so many servers, whose arrivals are random, and how many served a second.
func wait(seed uint64, rate float64, servers int, service func(c *clock) float64) (mean, served float64) {
	const warm, customers = 50_000, 600_000
	c := newClock(seed)
	s := c.station("queue", servers)
	n, sum := 0, 0.0
	var began float64
	var arrive func()
	arrive = func() {
		came := c.now
		s.take(func() {
			if n++; n == warm {
				began = c.now
			}
			if n > warm {
				sum += c.now - came
			}
			c.after(service(c), s.give)
		})
		c.after(c.exponential(rate), arrive)
	}
	c.after(c.exponential(rate), arrive)
	for n < warm+customers {
		c.runUntil(c.now + 1000)
	}
	return sum / float64(n-warm), float64(n-warm) / (c.now - began)
}

// erlangC is the mean wait in M/M/c.
func erlangC(rate, mean float64, servers int) float64 {
	a, sum, term := rate*mean, 0.0, 1.0
	for k := range servers {
		sum += term
		term *= a / float64(k+1)
	}
	rho := a / float64(servers)
	waits := term / (1 - rho) / (sum + term/(1-rho))
	return waits * mean / (float64(servers) * (1 - rho))
}

// The engine gives the waiting times that queueing theory knows.
func TestWaitingTimesAreThoseOfTheory(t *testing.T) {
	t.Parallel()
	exponential := func(c *clock) float64 { return c.exponential(1) }
	fixed := func(*clock) float64 { return 1 }
	for _, c := range []struct {
		name    string
		rate    float64
		servers int
		service func(*clock) float64
		want    float64
	}{
		{"M/M/1 at 0.5", 0.5, 1, exponential, 1},         // rho/(mu-lambda)
		{"M/M/1 at 0.8", 0.8, 1, exponential, 4},         // the same
		{"M/D/1 at 0.8", 0.8, 1, fixed, 0.8 / (2 * 0.2)}, // Pollaczek and Khinchine
		{"M/M/4 at 0.8", 3.2, 4, exponential, erlangC(3.2, 1, 4)},
		{"M/D/4 at 0.8", 3.2, 4, fixed, erlangC(3.2, 1, 4) / 2 * cosmetatos(0.8, 4)},
		{"M/D/16 at 0.9", 14.4, 16, fixed, erlangC(14.4, 1, 16) / 2 * cosmetatos(0.9, 16)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, _ := wait(1, c.rate, c.servers, c.service)
			if math.Abs(got-c.want) > 0.05*c.want {
				t.Errorf("mean wait: got %.4f, want %.4f within 5 %%", got, c.want)
			}
		})
	}
}

// cosmetatos corrects half of M/M/c's wait to that of M/D/c.
func cosmetatos(rho float64, servers int) float64 {
	c := float64(servers)
	return 1 + (1-rho)*(c-1)*(math.Sqrt(4+5*c)-2)/(16*rho*c)
}

// Times around a mean have that mean, whatever their spread.
func TestTimesAroundAMeanHaveIt(t *testing.T) {
	c := newClock(3)
	sum := 0.0
	const n = 400_000
	for range n {
		sum += c.around(2, 0.5)
	}
	if got := sum / n; math.Abs(got-2) > 0.01 {
		t.Errorf("mean: got %.4f, want 2", got)
	}
}

// A page that needs a processor of a shared host waits for it while it holds its place.
func TestAHostIsShared(t *testing.T) {
	c := newClock(1)
	host := c.station("host", 1)
	a, b := c.station("a", 1), c.station("b", 1)
	var ends []float64
	for _, at := range []*station{a, b, a} {
		c.walk([]leg{{at: at, host: host, seconds: 1}, {seconds: 0.5}}, func() { ends = append(ends, c.now) })
	}
	c.runUntil(10)
	if len(ends) != 3 || ends[0] != 1.5 || ends[1] != 2.5 || ends[2] != 3.5 {
		t.Errorf("ends: got %v, want 1.5, 2.5, 3.5", ends)
	}
	if got := host.utilisation(10); math.Abs(got-0.3) > 1e-9 {
		t.Errorf("utilisation: got %v, want 0.3", got)
	}
}
