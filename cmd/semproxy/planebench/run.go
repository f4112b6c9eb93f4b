package planebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options say what is measured.
type Options struct {
	Sizes       []int         // bytes of a page
	Concurrency []int         // pages under way at once
	Time        time.Duration // of each measurement
	Dir         string        // for the files of JetStream and the socket; removed by the caller
}

// Row is one measurement.
type Row struct {
	Path        string        `json:"path"`
	Size        int           `json:"size"` // bytes of a page
	Concurrency int           `json:"concurrency"`
	Pages       int           `json:"pages"`
	Bytes       float64       `json:"bytes_per_second"` // of pages; a reply that carries the page back is not counted again
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	CPU         float64       `json:"cpu_seconds_per_gib"` // of everything in this process: sender, NATS server and sidecar
	Raw         string        `json:"raw,omitempty"`       // the raw path that it is held against
	Share       float64       `json:"share,omitempty"`     // of the raw path's bytes per second
}

// path is a way for a page.
type path struct {
	name string
	raw  string // name of the raw path to hold it against; empty for one
	most int    // pages larger than this cannot go that way; 0: any
	// open prepares pages of size bytes for workers, and returns what sends one.
	open func(ctx context.Context, e *env, size, workers int) (send func(ctx context.Context, worker int) error, closed func(), err error)
}

// Run measures every path for each size and concurrency, raw and tested ones after each other, and reports as it goes.
func Run(ctx context.Context, o Options, report func(Row)) error {
	if len(o.Sizes) == 0 || len(o.Concurrency) == 0 || slices.Min(o.Sizes) < 1 || slices.Min(o.Concurrency) < 1 || o.Time <= 0 {
		return errors.New("sizes, concurrency and time must be given and be positive")
	}
	e, err := newEnv(o.Dir, slices.Max(o.Sizes))
	if err != nil {
		return err
	}
	defer e.close()
	for _, size := range o.Sizes {
		for _, n := range o.Concurrency {
			raw := make(map[string]float64)
			for _, p := range paths {
				if p.most > 0 && size > p.most {
					continue
				}
				row, err := measure(ctx, e, p, size, n, o.Time)
				if err != nil {
					return fmt.Errorf("%s, pages of %d bytes, %d at once: %w", p.name, size, n, err)
				}
				raw[p.name] = row.Bytes
				if p.raw != "" && raw[p.raw] > 0 {
					row.Raw, row.Share = p.raw, row.Bytes/raw[p.raw]
				}
				report(row)
			}
		}
	}
	return nil
}

func measure(ctx context.Context, e *env, p path, size, n int, d time.Duration) (Row, error) {
	send, closed, err := p.open(ctx, e, size, n)
	if err != nil {
		return Row{}, err
	}
	defer closed()
	for w := range n { // buffers, regions and connections are there when the clock starts
		if err := send(ctx, w); err != nil {
			return Row{}, err
		}
	}
	times, faults := make([][]time.Duration, n), make([]error, n)
	cpu, began := cpuTime(), time.Now()
	var group sync.WaitGroup
	for w := range n {
		group.Go(func() {
			for last := began; last.Sub(began) < d && ctx.Err() == nil; {
				if faults[w] = send(ctx, w); faults[w] != nil {
					return
				}
				now := time.Now()
				times[w] = append(times[w], now.Sub(last))
				last = now
			}
		})
	}
	group.Wait()
	took, used := time.Since(began), cpuTime()-cpu
	if err := errors.Join(append(faults, ctx.Err())...); err != nil {
		return Row{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	bytes := float64(len(all)) * float64(size)
	return Row{
		Path: p.name, Size: size, Concurrency: n, Pages: len(all), Bytes: bytes / took.Seconds(),
		P50: all[len(all)/2], P99: all[len(all)*99/100], CPU: used.Seconds() / (bytes / (1 << 30)),
	}, nil
}
