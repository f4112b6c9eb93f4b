package gpu

import (
	"context"
	"time"
)

// Stats says what became of one page. See WithStats.
type Stats struct {
	Device string        // where it was computed
	Queued time.Duration // how long it waited for its batch to start; 0 on the CPU
	Batch  int           // pages of its batch; 0 on the CPU
}

type statsKey struct{}

// WithStats makes Compress and Measure, called with the context returned, fill s.
func WithStats(ctx context.Context, s *Stats) context.Context {
	return context.WithValue(ctx, statsKey{}, s)
}

func note(ctx context.Context, device string, t *task) {
	s, ok := ctx.Value(statsKey{}).(*Stats)
	if !ok {
		return
	}
	*s = Stats{Device: device}
	if t != nil {
		s.Queued, s.Batch = t.queued, t.pages
	}
}
