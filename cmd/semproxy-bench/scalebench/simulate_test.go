package scalebench

import (
	"math"
	"reflect"
	"testing"
	"time"
)

// measured is about what a busy machine of two cores gives for a page of the demo.
func measured() *Costs {
	return &Costs{
		PageBytes: 1_700_000, CoreBytes: 450_000, Client: 2 * time.Millisecond, Sidecar: 6 * time.Millisecond, NATS: 3 * time.Millisecond,
		Redis: 600 * time.Microsecond, NATSBytes: 3_600_000, RedisBytes: 500_000, Latency: 15 * time.Millisecond, Spread: 0.2,
	}
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	t.Parallel()
	d := DefaultDeployment()
	run := func(seed uint64) (a, b Result) {
		a, err := Simulate(measured(), &d, Shared, 5, 1, seed)
		if err != nil {
			t.Fatal(err)
		}
		b, err = Predict(measured(), Machine{Cores: 2, Free: 1.5, SidecarCores: 1}, 2, 4, 5, seed)
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	a, b := run(1)
	again, b2 := run(1)
	if !reflect.DeepEqual(a, again) || !reflect.DeepEqual(b, b2) {
		t.Errorf("the same seed: got %+v and %+v, %+v and %+v", a, again, b, b2)
	}
	if other, _ := run(2); reflect.DeepEqual(a, other) {
		t.Error("another seed gave the same")
	}
}

// Below the bound everything that is offered is done; above it, as much as the scarcest resource allows and no more.
func TestThroughputIsTheBoundOfTheScarcestResource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		t     Topology
		nodes int
		costs func(*Costs)
		limit string
	}{
		{"too little is asked for", Shared, 2, nil, ""},
		{"NATS's network", Shared, 64, nil, NATSLinks},
		{"NATS's cores", Shared, 64, func(c *Costs) { c.NATS = 25 * time.Millisecond; c.Redis = 0 }, NATSCPU},
		{"one Redis", Leaf, 128, nil, RedisCPU},
		{"Redis's network", Leaf, 128, func(c *Costs) { c.RedisBytes = 8_000_000 }, RedisLinks},
		{"tenants over clusters", Hashed, 128, nil, ""},
		{"a Redis per node", PerNode, 128, nil, ""},
		{"the sidecars", PerNode, 16, func(c *Costs) { c.Sidecar = 40 * time.Millisecond }, Sidecars},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			costs, d := measured(), DefaultDeployment()
			d.GroupNodes = 4
			if c.costs != nil {
				c.costs(costs)
			}
			most, limit := Bound(costs, &d, c.t, c.nodes)
			if limit != c.limit {
				t.Fatalf("limit: got %q, want %q", limit, c.limit)
			}
			r, err := Simulate(costs, &d, c.t, c.nodes, 3, 1)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(r.Tokens-most) > 0.05*most {
				t.Errorf("tokens/s: got %.0f, want the bound, %.0f, within 5 %%", r.Tokens, most)
			}
			if limit == "" && r.Exact > 0.01 {
				t.Errorf("left exact: got %.3f, want none", r.Exact)
			}
			if limit != "" && (r.Busiest != limit || r.Used < 0.95 || r.Exact == 0) {
				t.Errorf("busiest: got %q at %.2f, %.3f left exact, want %q all the time", r.Busiest, r.Used, r.Exact, limit)
			}
		})
	}
}

// A closed loop of pages on one machine gives what its processors can do, or its only sidecar.
func TestPredictionIsTheBoundOfOneMachine(t *testing.T) {
	t.Parallel()
	costs := measured()
	total := (costs.Client + costs.Sidecar + costs.NATS + costs.Redis).Seconds()
	for _, c := range []struct {
		name              string
		m                 Machine
		sidecars, clients int
		want              float64
	}{
		{"many clients, two cores", Machine{2, 2, 1}, 4, 16, 2 / total},
		{"others take half of the machine", Machine{2, 1, 1}, 4, 16, 1 / total},
		{"one sidecar of one core among many", Machine{16, 16, 1}, 1, 16, 1 / (costs.Sidecar + costs.Redis).Seconds()},
		{"one page at a time", Machine{2, 2, 1}, 1, 1, 1 / costs.Latency.Seconds()},
	} {
		r, err := Predict(costs, c.m, c.sidecars, c.clients, 60, 1)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Pages-c.want) > 0.06*c.want {
			t.Errorf("%s: got %.1f pages/s, want %.1f within 6 %%", c.name, r.Pages, c.want)
		}
		if r.P99 < r.P50 || r.P50 <= 0 {
			t.Errorf("%s: got p50 %v and p99 %v", c.name, r.P50, r.P99)
		}
	}
}

func TestSaturationIsWhereABoundBegins(t *testing.T) {
	d := DefaultDeployment()
	n, limit := Saturates(measured(), &d, Shared, 1000)
	if limit != NATSLinks {
		t.Fatalf("limit: got %q after %d nodes, want %q", limit, n, NATSLinks)
	}
	if _, before := Bound(measured(), &d, Shared, n-1); before != "" {
		t.Errorf("one node less: got %q, want no limit", before)
	}
	if n, limit := Saturates(measured(), &d, PerNode, 1000); n != 0 {
		t.Errorf("a Redis per node: got %d nodes, %q, want none", n, limit)
	}
}

func TestBadSizesAreRefused(t *testing.T) {
	d := DefaultDeployment()
	bad := d
	bad.NodeCores = 0
	if _, err := Simulate(measured(), &bad, Shared, 1, 1, 1); err == nil {
		t.Error("no cores: got nil, want an error")
	}
	if _, err := Simulate(measured(), &d, Shared, 0, 1, 1); err == nil {
		t.Error("no nodes: got nil, want an error")
	}
	if _, err := Simulate(&Costs{}, &d, Shared, 1, 1, 1); err == nil {
		t.Error("no costs: got nil, want an error")
	}
	if _, err := Predict(measured(), Machine{}, 1, 1, 1, 1); err == nil {
		t.Error("no machine: got nil, want an error")
	}
}
