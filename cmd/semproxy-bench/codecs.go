package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
)

// codecRow is one page by one way to make it smaller.
type codecRow struct {
	Page     string  `json:"page"`
	Way      string  `json:"way"`
	Bytes    float64 `json:"bytes"`            // share of the page's
	Rate     float64 `json:"bytes_per_second"` // of the page's bytes, one core
	Copies   float64 `json:"fraction_of_memory_copy"`
	Measured bool    `json:"measured"`
	Error    float64 `json:"attention_error"`
}

// codecsFlags are the flags of "semproxy-bench codecs".
type codecsFlags struct {
	time   time.Duration
	output string
}

// codecProfiles are the ways of a policy, in the order of the table.
var codecProfiles = []struct {
	name    string
	profile map[string]any
}{
	{"8 bits", map[string]any{"method": "none", "bits": 8}},
	{"4 bits", map[string]any{"method": "none", "bits": 4}},
	{"weighted 50 %", map[string]any{"method": "weighted", "ratio": 0.5}},
	{"weighted 25 %", map[string]any{"method": "weighted", "ratio": 0.25}},
	{"weighted 50 %, 8 bits", map[string]any{"method": "weighted", "ratio": 0.5, "bits": 8}},
	{"weighted 25 %, 4 bits", map[string]any{"method": "weighted", "ratio": 0.25, "bits": 4}},
}

func newCodecsCommand() *cobra.Command {
	var f codecsFlags
	cmd := &cobra.Command{
		Use:   "codecs [PAGE...]",
		Short: "Compare the bytes and time of cores and few bits with zstd and LZ4 over the same pages",
		Long: `Make each page smaller in turn by LZ4, zstd and profiles of a policy, all on one core, and report the share of the bytes that is left,
the page's bytes per second, the same as a share of a memory copy in this run, and the error of attention where something is lost.

Pages are files (docs/reference/wire-format.md); without any, those of the demo.`,
		Example: "  semproxy-bench codecs\n  semproxy-bench codecs --time 2s my.page.safetensors",
		RunE:    f.run,
	}
	cmd.Flags().DurationVar(&f.time, "time", time.Second, "how long each way is measured on each page")
	show.Flag(cmd, &f.output)
	show.JSONFlag(cmd, &f.output)
	return cmd
}

func (f *codecsFlags) run(cmd *cobra.Command, files []string) error {
	pages, err := codecPages(files)
	if err != nil {
		return err
	}
	ways, err := codecWays()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	each := func(r codecRow) error {
		lost := "0"
		if r.Measured {
			lost = fmt.Sprintf("%.3f", r.Error)
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%.1f %%\t%.0f MB/s\t%.3f\t%s\t\n", r.Page, r.Way, 100*r.Bytes, r.Rate/1e6, r.Copies, lost)
		return err
	}
	if f.output != show.Table {
		rows := show.Rows(out, f.output)
		each = func(r codecRow) error { return rows(r) }
	} else if _, err := fmt.Fprint(table, "page\tway\tbytes\trate, one core\tof a copy\tattention error\t\n"); err != nil {
		return err
	}
	for _, p := range pages {
		var copies float64
		for _, w := range ways {
			r := codecRow{Page: p.name, Way: w.name}
			if err := f.measure(cmd.Context(), p.blob, w, &r); err != nil {
				return fmt.Errorf("%s: %s: %s: %w", p.name, w.name, pipeline.CodeOf(err), err)
			}
			if copies == 0 {
				copies = r.Rate // the first way
			}
			r.Copies = r.Rate / copies
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return table.Flush()
}

// measure makes a page smaller again and again, and fills r in.
func (f *codecsFlags) measure(ctx context.Context, blob []byte, w codecWay, r *codecRow) error {
	n, start := 0, time.Now()
	for ; n == 0 || time.Since(start) < f.time; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		left, err := w.do(ctx, blob, r)
		if err != nil {
			return err
		}
		r.Bytes = float64(left) / float64(len(blob))
	}
	r.Rate = float64(n) * float64(len(blob)) / time.Since(start).Seconds()
	return nil
}

type codecPage struct {
	name string
	blob []byte
}

func codecPages(files []string) (pages []codecPage, err error) {
	for _, file := range files {
		blob, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pages = append(pages, codecPage{filepath.Base(file), blob})
	}
	if len(files) > 0 {
		return pages, nil
	}
	for _, name := range configs.Pages() {
		blob, err := fs.ReadFile(configs.Demo(), name+".page.safetensors")
		if err != nil {
			return nil, err
		}
		pages = append(pages, codecPage{name, blob})
	}
	return pages, nil
}

// codecWay makes a page smaller and says how many bytes are left. It keeps its buffers.
type codecWay struct {
	name string
	do   func(ctx context.Context, blob []byte, r *codecRow) (left int, err error)
}

// codecWays starts with a copy of memory. All work on one core.
func codecWays() ([]codecWay, error) {
	var buffer bytes.Buffer
	reset := func() *bytes.Buffer { buffer.Reset(); return &buffer }
	ways := []codecWay{
		{"memory copy", func(_ context.Context, blob []byte, _ *codecRow) (int, error) { return reset().Write(blob) }},
		{"LZ4", func(_ context.Context, blob []byte, _ *codecRow) (int, error) {
			return finished(lz4.NewWriter(reset()), blob, &buffer)
		}},
	}
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedBetterCompression} {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		ways = append(ways, codecWay{"zstd, " + level.String(), func(_ context.Context, blob []byte, _ *codecRow) (int, error) {
			w.Reset(reset())
			return finished(w, blob, &buffer)
		}})
	}
	profiles, tenants := map[string]any{}, map[string]any{}
	for i, p := range codecProfiles {
		name := fmt.Sprint("way", i)
		profiles[name] = p.profile
		tenants[name] = map[string]any{"rules": []any{map[string]any{"profile": name}}}
	}
	doc, err := json.Marshal(map[string]any{"apiVersion": policy.APIVersion, "profiles": profiles, "tenants": tenants}) // JSON is YAML
	if err != nil {
		return nil, err
	}
	set, err := policy.Compile(policy.Source{Name: "codecs", Data: doc})
	if err != nil {
		return nil, err
	}
	p, err := pipeline.New(pipeline.Config{Policy: func() *policy.Set { return set }, Compressor: compress.New(1)})
	if err != nil {
		return nil, err
	}
	for i, one := range codecProfiles {
		ways = append(ways, codecWay{one.name, func(ctx context.Context, blob []byte, r *codecRow) (int, error) {
			out, err := p.Compress(ctx, fmt.Sprint("way", i), blob)
			if err != nil {
				return 0, err
			}
			defer out.Release()
			r.Measured, r.Error = out.Measured, out.AttentionError
			return len(out.Body), nil
		}})
	}
	return ways, nil
}

func finished(w io.WriteCloser, blob []byte, into *bytes.Buffer) (int, error) {
	if _, err := w.Write(blob); err != nil {
		return 0, err
	}
	err := w.Close()
	return into.Len(), err
}
