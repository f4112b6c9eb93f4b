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
	CPUShare    float64       `json:"cpu_share,omitempty"` // of this path's CPU time that the raw path needs for as much
}

// path is a way for a page.
type path struct {
	name string
	raw  string // name of the raw path to hold it against, which comes before it; empty for a raw one
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
			for _, group := range groups(size) {
				rows, err := measure(ctx, e, group, size, n, o.Time)
				if err != nil {
					return fmt.Errorf("pages of %d bytes, %d at once: %w", size, n, err)
				}
				for _, row := range rows {
					report(row)
				}
			}
		}
	}
	return nil
}

// groups are each raw path with those that are held against it, as far as pages of size bytes can go that way.
func groups(size int) (all [][]path) {
	for _, p := range paths {
		switch {
		case p.most > 0 && size > p.most:
		case p.raw == "":
			all = append(all, []path{p})
		default:
			all[len(all)-1] = append(all[len(all)-1], p)
		}
	}
	return all
}

// slices of time are taken by the paths of a group in turn, so that what else the machine does slows all of them alike.
const turns = 10

// run is one path being measured.
type run struct {
	path
	send       func(ctx context.Context, worker int) error
	times      [][]time.Duration // by worker
	took, used time.Duration
}

func measure(ctx context.Context, e *env, group []path, size, n int, d time.Duration) ([]Row, error) {
	runs := make([]*run, 0, len(group))
	opened := make([]func(), 0, len(group))
	defer func() {
		for _, closed := range opened {
			closed()
		}
	}()
	for _, p := range group {
		send, closed, err := p.open(ctx, e, size, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		opened = append(opened, closed)
		r := &run{path: p, send: send, times: make([][]time.Duration, n)}
		runs = append(runs, r)
		for w := range n { // buffers, regions and connections are there when the clock starts
			if err := send(ctx, w); err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	for range turns {
		for _, r := range runs {
			if err := r.turn(ctx, n, d/turns); err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	rows := make([]Row, 0, len(runs))
	for _, r := range runs {
		row := r.row(size, n)
		if r.raw != "" {
			raw := &rows[0]
			row.Raw, row.Share = r.raw, row.Bytes/raw.Bytes
			if row.CPU > 0 {
				row.CPUShare = raw.CPU / row.CPU
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// turn sends pages for d.
func (r *run) turn(ctx context.Context, n int, d time.Duration) error {
	faults := make([]error, n)
	cpu, began := cpuTime(), time.Now()
	var group sync.WaitGroup
	for w := range n {
		group.Go(func() {
			for last := began; last.Sub(began) < d && ctx.Err() == nil; {
				if faults[w] = r.send(ctx, w); faults[w] != nil {
					return
				}
				now := time.Now()
				r.times[w] = append(r.times[w], now.Sub(last))
				last = now
			}
		})
	}
	group.Wait()
	r.took, r.used = r.took+time.Since(began), r.used+cpuTime()-cpu
	return errors.Join(append(faults, ctx.Err())...)
}

func (r *run) row(size, n int) Row {
	all := slices.Concat(r.times...)
	slices.Sort(all)
	bytes := float64(len(all)) * float64(size)
	return Row{
		Path: r.name, Size: size, Concurrency: n, Pages: len(all), Bytes: bytes / r.took.Seconds(),
		P50: all[len(all)/2], P99: all[len(all)*99/100], CPU: r.used.Seconds() / (bytes / (1 << 30)),
	}
}
