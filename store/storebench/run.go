package storebench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
)

// TileBytes is the size of a value in Redis, for both of its clients.
const TileBytes = 1 << 20

// Tenant whose objects these are.
const Tenant = "bench"

// Options say what is measured. Zero values are useful but for Raw and Store.
type Options struct {
	Raw   goredis.UniversalClient // to the same Redis as Store
	Store store.Store             // of tiles of TileBytes

	LMCache string // host:port of LMCache's server, which is measured too; empty: it is not

	Sizes       []int         // bytes of an object; default 64 KiB, 1 MiB, 8 MiB
	Concurrency []int         // objects on their way at once; default 1, 4
	Rounds      int           // turns of each; default 10
	Turn        time.Duration // default 200 ms
	Life        time.Duration // of what is put, so that Redis's memory stays bounded; default 2 s
}

// Operations and who does them.
const (
	Put = "put" // a new object each time
	Get = "get" // into memory of the object's own, which the reader may keep

	ByRaw     = "raw"
	ByStore   = "store"
	ByLMCache = "lmcache"
)

// Row is one side of a comparison.
type Row struct {
	Op, By      string
	Size        int
	Concurrency int
	Rate        float64       // bytes per second, median of the turns
	P50, P99    time.Duration // of one object
	CPUPerGiB   time.Duration // of this process, Redis not included; 0 where it cannot be told
	Ratio       float64       // of this side's rate to the raw client's, median of the pairs of turns
}

// Run measures everything that opt says, row by row.
func Run(ctx context.Context, opt Options, report func(Row)) error {
	opt = opt.withDefaults()
	var peer *lmcache
	if opt.LMCache != "" {
		peer = newLMCache(opt.LMCache)
		defer func() { _ = peer.close() }()
	}
	for _, size := range opt.Sizes {
		for _, n := range opt.Concurrency {
			for _, op := range []string{Put, Get} {
				c := comparison{opt: opt, op: op, size: size, streams: n}
				c.sides = []*side{
					{by: ByRaw, put: c.rawPut, get: c.rawGet},
					{by: ByStore, put: c.storePut, get: c.storeGet},
				}
				if peer != nil {
					c.sides = append(c.sides, &side{
						by: ByLMCache,
						put: func(ctx context.Context, i int64, blob []byte, _ time.Duration) error {
							return peer.put(ctx, i%lmKept, blob)
						},
						get: func(ctx context.Context) error { return peer.get(ctx, 0) },
					})
				}
				if err := c.run(ctx); err != nil {
					return fmt.Errorf("%s of %d bytes, %d at once: %w", op, size, n, err)
				}
				for _, s := range c.sides {
					report(c.row(s))
				}
			}
		}
	}
	return nil
}

func (o Options) withDefaults() Options {
	if len(o.Sizes) == 0 {
		o.Sizes = []int{64 << 10, 1 << 20, 8 << 20}
	}
	if len(o.Concurrency) == 0 {
		o.Concurrency = []int{1, 4}
	}
	if o.Rounds <= 0 {
		o.Rounds = 10
	}
	if o.Turn <= 0 {
		o.Turn = 200 * time.Millisecond
	}
	if o.Life <= 0 {
		o.Life = 2 * time.Second
	}
	return o
}

// side is who does an operation, and what came of it. Object 0 is the one that is read.
type side struct {
	by  string
	put func(ctx context.Context, i int64, blob []byte, life time.Duration) error
	get func(ctx context.Context) error

	rates []float64
	times []time.Duration
	cpu   time.Duration
	bytes int64
}

// comparison is one operation of one size, by all sides.
type comparison struct {
	opt           Options
	op            string
	size, streams int

	name  string // of this comparison's keys
	next  atomic.Int64
	sides []*side
}

func (c *comparison) run(ctx context.Context) error {
	c.name = fmt.Sprintf("%016x", rand.Uint64())
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for turn := -1; turn < c.opt.Rounds; turn++ { // the first one warms up
		for _, s := range c.sides {
			if err := c.turn(ctx, s, turn >= 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare puts the one object that is read, by all.
func (c *comparison) prepare(ctx context.Context) error {
	if c.op != Get {
		return nil
	}
	blob := c.blob()
	for _, s := range c.sides {
		if err := s.put(ctx, 0, blob, time.Minute); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) blob() []byte {
	b := make([]byte, c.size)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
	}
	return b
}

func (c *comparison) key(i int64) store.Key {
	return store.Key{Tenant: Tenant, Object: fmt.Sprintf("%s%016x", c.name, i)}
}

// turn lets one side work for a while.
func (c *comparison) turn(ctx context.Context, s *side, counts bool) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	start, cpu := time.Now(), cpuTime()
	for range c.streams {
		group.Go(func() {
			blob := c.blob()
			var took []time.Duration
			var err error
			for more := true; more && err == nil; more = time.Since(start) < c.opt.Turn {
				i, from := c.next.Add(1), time.Now()
				binary.LittleEndian.PutUint64(blob, uint64(i))
				if c.op == Put {
					err = s.put(ctx, i, blob, c.opt.Life)
				} else {
					err = s.get(ctx)
				}
				took = append(took, time.Since(from))
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	group.Wait()
	if failed != nil || !counts {
		return failed
	}
	bytes := int64(len(all)) * int64(c.size)
	s.rates = append(s.rates, float64(bytes)/time.Since(start).Seconds())
	s.times = append(s.times, all...)
	s.cpu += cpuTime() - cpu
	s.bytes += bytes
	return nil
}

func (c *comparison) storePut(ctx context.Context, i int64, blob []byte, life time.Duration) error {
	return c.opt.Store.Put(ctx, c.key(i), blob, store.PutOptions{TTL: life})
}

func (c *comparison) storeGet(ctx context.Context) error {
	_, err := c.opt.Store.Get(ctx, c.key(0))
	return err
}

func (c *comparison) rawKey(i int64, tile int) string {
	return fmt.Sprintf("bench{%s%016x}:%d", c.name, i, tile)
}

func (c *comparison) rawPut(ctx context.Context, i int64, blob []byte, life time.Duration) error {
	for at := 0; at < len(blob); at += TileBytes {
		if err := c.opt.Raw.Set(ctx, c.rawKey(i, at/TileBytes), blob[at:min(at+TileBytes, len(blob))], life).Err(); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) rawGet(ctx context.Context) error {
	blob := make([]byte, c.size)
	for at := 0; at < len(blob); at += TileBytes {
		if err := c.opt.Raw.GetToBuffer(ctx, c.rawKey(0, at/TileBytes), blob[at:min(at+TileBytes, len(blob))]).Err(); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) row(s *side) Row {
	ratios := make([]float64, len(s.rates))
	for i := range ratios {
		ratios[i] = s.rates[i] / c.sides[0].rates[i]
	}
	r := Row{Op: c.op, By: s.by, Size: c.size, Concurrency: c.streams, Rate: median(s.rates), Ratio: median(ratios)}
	slices.Sort(s.times)
	if n := len(s.times); n > 0 {
		r.P50, r.P99 = s.times[n/2], s.times[n*99/100]
		r.CPUPerGiB = time.Duration(float64(s.cpu) * (1 << 30) / float64(s.bytes))
	}
	return r
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}
