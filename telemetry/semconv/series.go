package semconv

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
)

// DefaultSeries is how many combinations of profile, model and device a Series tells apart unless told otherwise.
const DefaultSeries = 256

// Series bounds the combinations of profile, model and device that metrics tell apart: the first that it sees keep their
// names, the models of all others are "other"; profiles
// are the policy's, and devices are few. It is safe for concurrent use.
type Series struct {
	limit int
	mu    sync.RWMutex
	known map[[3]string][]attribute.KeyValue
}

// NewSeries tells limit combinations apart (0 or less: DefaultSeries).
func NewSeries(limit int) *Series {
	if limit <= 0 {
		limit = DefaultSeries
	}
	return &Series{limit: limit, known: map[[3]string][]attribute.KeyValue{}}
}

// Of are the attributes of a combination. They have room for no more: whoever appends gets a copy.
func (s *Series) Of(profile, model, device string) []attribute.KeyValue {
	key := [3]string{profile, model, device}
	s.mu.RLock()
	all, ok := s.known[key]
	full := len(s.known) >= s.limit
	s.mu.RUnlock()
	if ok {
		return all
	}
	if full {
		model = OtherTenant
	}
	all = []attribute.KeyValue{Policy.String(profile), Model.String(model), Device.String(device)}
	all = all[:3:3]
	if full {
		return all
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = all
	return all
}
