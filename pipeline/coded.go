package pipeline

import (
	"context"
	"time"

	"github.com/semproxy/semproxy/compress"
)

// coded compresses, writes the cores in few bits and measures what a reader will find: rounding is a loss like merging. Cores
// that cannot be written so stay in their type.
func (p *Pipeline) coded(ctx context.Context, j *job, bits int, full, got *compress.Attention) error {
	if err := p.work(ctx, j, &j.opt, full, nil); err != nil {
		return err
	}
	j.frequencies = j.frequencies[:0]
	if f, err := j.in.Rope.Frequencies(); err == nil { // a rotation that nobody can undo leaves less in common
		for _, w := range f {
			j.frequencies = append(j.frequencies, float32(w))
		}
	}
	c := j.cores()
	j.isCoded = c.Code(bits, j.frequencies, j.in.Rope.Interleaved, &j.codes)
	if got == nil {
		return nil
	}
	start := time.Now()
	defer func() { j.report.Stages.Measure += time.Since(start) }()
	return p.cfg.Compressor.Attend(ctx, &j.probe, resultOf(&c), got)
}
