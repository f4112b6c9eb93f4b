package scalebench

import (
	"fmt"
	"slices"
	"time"
)

// Result is what a simulated or measured size gave.
type Result struct {
	Pages   float64       `json:"pages_per_second"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Tokens  float64       `json:"tokens_per_second,omitempty"`
	Offered float64       `json:"offered_tokens_per_second,omitempty"`
	Exact   float64       `json:"left_exact"` // share of the pages for which nothing had room

	NATSBits  float64 `json:"nats_bits_per_second"`  // received by the busiest NATS server
	RedisBits float64 `json:"redis_bits_per_second"` // received by the busiest Redis server
	Busiest   string  `json:"busiest,omitempty"`     // resource
	Used      float64 `json:"busiest_used"`          // share of it
}

// Machine is the one machine on which small sizes are measured.
type Machine struct {
	Cores        int     `json:"cores"`
	Free         float64 `json:"free_cores"` // what other programs leave, on average
	SidecarCores int     `json:"sidecar_cores"`
}

// timeSlice is how long another program keeps a processor, in seconds: about what Linux gives it.
const timeSlice = 3e-3

// Predict simulates what is measured: so many sidecars and clients, all parts on one machine. A client sends its next page when it
// has the reply to the last.
func Predict(c *Costs, m Machine, sidecars, clients int, seconds float64, seed uint64) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	if m.Cores < 1 || m.Free <= 0 || m.SidecarCores < 1 || sidecars < 1 || clients < 1 || seconds <= 0 {
		return Result{}, fmt.Errorf("cores, sidecars, clients and seconds must be positive, got %+v, %d, %d, %v", m, sidecars, clients, seconds)
	}
	k := newClock(seed)
	host := k.station("machine", m.Cores)
	host.occupy(float64(m.Cores)-m.Free, timeSlice)
	part := func(name string, n, servers int) []*station {
		all := make([]*station, n)
		for i := range all {
			all[i] = k.station(name, servers)
		}
		return all
	}
	nats, redis := part("nats", 3, m.Cores), part("redis", 3, 1)
	workers, cpus := part("workers", sidecars, m.SidecarCores), part("sidecar", sidecars, m.SidecarCores)
	anyOf := func(of []*station) *station { return of[k.random.IntN(len(of))] }
	work := func(at *station, mean time.Duration, share float64) leg {
		return leg{at: at, host: host, seconds: k.around(share*mean.Seconds(), c.Spread)}
	}
	own := k.station("clients", clients)
	var times []time.Duration
	var send func()
	warm := 0.2 * seconds
	send = func() {
		began, i := k.now, k.random.IntN(sidecars)
		k.walk([]leg{work(own, c.Client, .5), {seconds: c.stray()}, work(anyOf(nats), c.NATS, .5)}, func() {
			workers[i].take(func() {
				k.walk([]leg{work(anyOf(redis), c.Redis, .2), work(cpus[i], c.Sidecar, 1), work(anyOf(redis), c.Redis, .8)}, func() {
					workers[i].give()
					k.walk([]leg{work(anyOf(nats), c.NATS, .5), work(own, c.Client, .5)}, func() {
						if began >= warm {
							times = append(times, time.Duration((k.now-began)*float64(time.Second)))
						}
						send()
					})
				})
			})
		})
	}
	for range clients {
		send()
	}
	k.runUntil(warm + seconds)
	slices.Sort(times)
	r := Result{Pages: float64(len(times)) / seconds}
	r.P50, r.P99 = quantile(times, .5), quantile(times, .99)
	return r, nil
}

// quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// cluster is a simulated deployment.
type cluster struct {
	*clock
	c *Costs
	d *Deployment
	t Topology

	nodes, nodeIn, nodeOut, workers []*station
	nats, natsIn, natsOut           []*station
	redis, redisIn                  [][]*station
	held                            []int

	sent, exact, done int
	times             []time.Duration
	warm              float64
}

// Simulate runs so many nodes of a deployment. Each sends pages at random times, as many tokens a second as the deployment says;
// a page for which its node has no room is left exact. What happens before does not count: half of the seconds, and twice as long as
// the pages take that can be under way; what counts is once as long as that at least.
func Simulate(c *Costs, d *Deployment, t Topology, nodes int, seconds float64, seed uint64) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	if err := d.check(); err != nil {
		return Result{}, err
	}
	if nodes < 1 || seconds <= 0 {
		return Result{}, fmt.Errorf("nodes and seconds must be positive, got %d and %v", nodes, seconds)
	}
	s := &cluster{clock: newClock(seed), c: c, d: d, t: t, held: make([]int, nodes), warm: seconds / 2}
	if most, limit := Bound(c, d, t, nodes); limit != "" {
		pages := most * float64(d.TokenBytes) / float64(c.PageBytes)
		once := float64(nodes*d.Held) / pages
		s.warm += 2 * once
		seconds = max(seconds, once) // pages move in waves
	}
	s.build(nodes)
	rate := d.NodeTokens * float64(d.TokenBytes) / float64(c.PageBytes) // pages a second of a node
	for n := range nodes {
		var next func()
		next = func() {
			s.page(n)
			s.after(s.exponential(rate), next)
		}
		s.after(s.exponential(rate), next)
	}
	s.runUntil(s.warm)
	s.sent, s.exact, s.done, s.times = 0, 0, 0, nil
	s.each(func(_ string, st *station) { st.reset() })
	s.runUntil(s.warm + seconds)
	return s.result(seconds), nil
}

func (s *cluster) build(nodes int) {
	several := func(n int, name string, servers int) []*station {
		all := make([]*station, n)
		for i := range all {
			all[i] = s.station(name, servers)
		}
		return all
	}
	s.nodes, s.workers = several(nodes, Sidecars, s.d.NodeCores), several(nodes, "workers", s.d.Held)
	s.nodeIn, s.nodeOut = several(nodes, NodeLinks, 1), several(nodes, NodeLinks, 1)
	s.nats = several(3, NATSCPU, s.d.NATSCores)
	s.natsIn, s.natsOut = several(3, NATSLinks, 1), several(3, NATSLinks, 1)
	for range s.t.groups(s.d, nodes) {
		s.redis = append(s.redis, several(s.t.redisServers(s.d), RedisCPU, 1))
		s.redisIn = append(s.redisIn, several(s.t.redisServers(s.d), RedisLinks, 1))
	}
}

// each calls f for every station that can limit.
func (s *cluster) each(f func(resource string, st *station)) {
	for _, some := range [][]*station{s.nodes, s.nodeIn, s.nodeOut, s.nats, s.natsIn, s.natsOut, slices.Concat(s.redis...), slices.Concat(s.redisIn...)} {
		for _, st := range some {
			f(st.name, st)
		}
	}
}

// page is one page of a node on its way.
func (s *cluster) page(from int) {
	s.sent++
	if s.held[from] >= s.d.Held {
		s.exact++
		return
	}
	s.held[from]++
	began, to := s.now, from
	if s.t == Shared {
		to = s.random.IntN(len(s.nodes))
	}
	group := 0
	switch s.t {
	case Hashed:
		group = s.random.IntN(len(s.redis))
	case PerNode:
		group = from
	}
	server := s.random.IntN(len(s.redis[group]))
	redis := func(share, bytes float64) []leg {
		work := leg{at: s.redis[group][server], seconds: s.around(share*s.c.Redis.Seconds(), s.c.Spread)}
		if s.t == PerNode {
			return []leg{work}
		}
		return []leg{s.link(s.redisIn[group][server], bytes), work, {seconds: s.d.LinkDelay}}
	}
	sidecar := s.around(s.c.Sidecar.Seconds(), s.c.Spread)
	way := s.carry(from, to, float64(s.c.PageBytes), float64(s.c.PageBytes))
	way = append(way, redis(.2, .02*s.c.redisBytes())...)
	way = append(way, leg{at: s.nodes[to], seconds: sidecar})
	way = append(way, redis(.8, .98*s.c.redisBytes())...)
	way = append(way, s.carry(to, from, float64(s.c.CoreBytes), float64(s.c.PageBytes))...)
	s.walk(way, func() {
		s.held[from]--
		s.done++
		s.times = append(s.times, time.Duration((s.now-began)*float64(time.Second)))
	})
}

// link is bytes that pass a link of the network, and their way to the other end.
func (s *cluster) link(at *station, bytes float64) leg {
	return leg{at: at, seconds: 8 * bytes / s.d.LinkBits, bytes: bytes}
}

// carry is a message of so many bytes from one node to another: over one or two servers of the shared NATS, or within the node. Half
// of a page's time at NATS is for the page and half for the reply.
func (s *cluster) carry(from, to int, bytes, page float64) []leg {
	half := s.c.NATS.Seconds() * bytes / (page + float64(s.c.CoreBytes))
	if s.t != Shared {
		return []leg{{at: s.nodes[to], seconds: s.around(half/s.c.hops(), s.c.Spread)}}
	}
	a := s.random.IntN(3)
	hops := []int{a}
	if s.random.Float64() < s.c.hops()-1 {
		hops = append(hops, (a+1+s.random.IntN(2))%3)
	}
	legs := []leg{s.link(s.nodeOut[from], bytes), {seconds: s.d.LinkDelay}}
	for _, n := range hops {
		legs = append(legs, s.link(s.natsIn[n], bytes), leg{at: s.nats[n], seconds: s.around(half/s.c.hops(), s.c.Spread)},
			s.link(s.natsOut[n], bytes), leg{seconds: s.d.LinkDelay})
	}
	return append(legs, s.link(s.nodeIn[to], bytes))
}

func (s *cluster) result(seconds float64) Result {
	slices.Sort(s.times)
	perPage := float64(s.c.PageBytes) / float64(s.d.TokenBytes)
	r := Result{
		Pages: float64(s.done) / seconds, P50: quantile(s.times, .5), P99: quantile(s.times, .99),
		Tokens: float64(s.done) / seconds * perPage, Offered: float64(len(s.nodes)) * s.d.NodeTokens,
	}
	if s.sent > 0 {
		r.Exact = float64(s.exact) / float64(s.sent)
	}
	type share struct {
		sum float64
		n   int
	}
	var order []string
	shares := map[string]*share{}
	s.each(func(resource string, st *station) {
		if shares[resource] == nil {
			shares[resource] = &share{}
			order = append(order, resource)
		}
		shares[resource].sum += st.utilisation(seconds)
		shares[resource].n++
		switch resource {
		case NATSLinks:
			r.NATSBits = max(r.NATSBits, 8*st.moved/seconds)
		case RedisLinks:
			r.RedisBits = max(r.RedisBits, 8*st.moved/seconds)
		}
	})
	for _, resource := range order {
		if used := shares[resource].sum / float64(shares[resource].n); used > r.Used {
			r.Busiest, r.Used = resource, used
		}
	}
	return r
}
