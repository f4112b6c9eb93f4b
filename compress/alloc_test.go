//go:build !race

// Under the race detector a sync.Pool drops things at random, so `make race` runs these tests without it.

package compress_test

import (
	"context"
	"runtime/debug"
	"testing"

	"github.com/semproxy/semproxy/compress"
)

func TestNoAllocationInSteadyState(t *testing.T) {
	// A collection empties the pools: off, for the time of the test.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	c := compress.New(2)
	defer c.Close()
	in := synthetic(2, 4, 512, 64, compress.BF16)
	var res compress.Result
	for name, opt := range variants() {
		one := func() {
			if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			one()
		}
		// AllocsPerRun changes GOMAXPROCS, at which a sync.Pool loses what it holds: the second worker may come for its
		// memory at any later page. A page that allocates does so in each of the attempts.
		n := testing.AllocsPerRun(20, one)
		for attempt := 0; n > 0 && attempt < 4; attempt++ {
			n = testing.AllocsPerRun(20, one)
		}
		if n > 0 {
			t.Errorf("%s: %v allocations per page, want 0", name, n)
		}
	}
}

func TestWeightedPagesAllocateNothingInSteadyState(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pool
	c := compress.New(1)                             // a second worker may first find work, and grow its memory, at any time
	defer c.Close()
	in := synthetic(2, 4, 512, 64, compress.BF16)
	var res compress.Result
	for name, opt := range weighted(8) {
		opt.Ratio = 0.25
		one := func() {
			if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			one()
		}
		if n := testing.AllocsPerRun(20, one); n > 0 {
			t.Errorf("%s: %v allocations per page, want 0", name, n)
		}
	}
}
