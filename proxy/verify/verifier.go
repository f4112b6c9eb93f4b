package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Sample is a request to be asked again.
type Sample struct {
	Tenant, Profile, Digest string
	MaxChanged              float64 // share of answers that may change; 0: it is only reported
	Path                    string
	// Ask makes the request's body anew, compressed or exact.
	Ask func(compress bool) ([]byte, error)
}

// Options adjust a Verifier. The zero value of each field is useful.
type Options struct {
	Transport http.RoundTripper
	Key       func() string // the engine's bearer token; nil or "": none
	Every     time.Duration // least time between two samples; 0: 10 s; negative: none
	Timeout   time.Duration // for an answer; 0: 1 min
	Room      func() bool   // whether the engine has room; nil: always
	Meter     metric.MeterProvider
	Logger    *slog.Logger
}

// Bounds of what is kept: samples that wait, with their bodies, and tenants' counts.
const (
	maxWaiting = 4
	maxTallies = 1024
	maxAnswer  = 4 << 20
)

// MaxBody is the longest body that is sampled.
const MaxBody = 1 << 20

// Verifier samples the requests to one engine. It is safe for concurrent use.
type Verifier struct {
	url     url.URL
	opt     Options
	waiting chan Sample
	samples metric.Int64Counter
	back    metric.Int64Gauge
	labels  *semconv.TenantLabel

	mu     sync.Mutex
	counts map[[2]string]*Counts // by tenant and digest of the profile
}

// New prepares; Run works.
func New(engine *url.URL, o Options) (*Verifier, error) {
	if o.Key == nil {
		o.Key = func() string { return "" }
	}
	if o.Every == 0 {
		o.Every = 10 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Room == nil {
		o.Room = func() bool { return true }
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{url: *engine, opt: o, waiting: make(chan Sample, maxWaiting), counts: map[[2]string]*Counts{}, labels: semconv.NewTenantLabel(0)}
	if v.url.Scheme == "h2c" {
		v.url.Scheme = "http"
	}
	meter := o.Meter.Meter("github.com/semproxy/semproxy/proxy/verify")
	for _, m := range semconv.Metrics() {
		var err error
		switch m.Name {
		case semconv.MetricVerifySamples:
			v.samples, err = meter.Int64Counter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description))
		case semconv.MetricVerifyBack:
			v.back, err = meter.Int64Gauge(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description))
		}
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Wants says, by chance, whether a request of a tenant that samples such a share is to be offered.
func (v *Verifier) Wants(share float64) bool {
	return share > 0 && len(v.waiting) < maxWaiting && rand.Float64() < share //nolint:gosec // no secret
}

// Offer gives a request whose answer has ended. One that finds no room is forgotten: a sample is a sample.
func (v *Verifier) Offer(s Sample) {
	select {
	case v.waiting <- s:
	default:
	}
}

// Held says why a profile is stepped back for a tenant; empty when it is not.
func (v *Verifier) Held(tenant, digest string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.counts[[2]string{tenant, digest}]; t != nil && t.Back {
		return t.Why
	}
	return ""
}

// List are the counts, by tenant and profile.
func (v *Verifier) List() []Counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]Counts, 0, len(v.counts))
	for _, t := range v.counts {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b Counts) int {
		return strings.Compare(a.Tenant+"\x00"+a.Profile+"\x00"+a.Digest, b.Tenant+"\x00"+b.Profile+"\x00"+b.Digest)
	})
	return out
}

// Run asks until ctx ends, one sample after the other, then returns nil.
func (v *Verifier) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-v.waiting:
			v.one(ctx, s)
		}
		pause.Reset(max(0, v.opt.Every))
	}
}

// one verifies a sample.
func (v *Verifier) one(ctx context.Context, s Sample) {
	outcome := "no_room"
	if v.opt.Room() {
		compressed, control, err := v.ask(ctx, s)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			outcome = "failed"
			v.opt.Logger.InfoContext(ctx, "verify_failed", "tenant", s.Tenant, "error", err.Error())
		default:
			if outcome = "same"; compressed.Changed {
				outcome = "changed"
			}
			v.take(ctx, s, compressed, control)
		}
	}
	v.samples.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(semconv.Tenant.String(v.labels.Value(s.Tenant)), semconv.Outcome.String(outcome))))
}

// take counts a sample, and steps the profile back where it must be.
func (v *Verifier) take(ctx context.Context, s Sample, compressed, control Difference) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := [2]string{s.Tenant, s.Digest}
	t := v.counts[key]
	if t == nil {
		if len(v.counts) >= maxTallies {
			return
		}
		t = &Counts{Tenant: s.Tenant, Profile: s.Profile, Digest: s.Digest}
		v.counts[key] = t
	}
	t.MaxChanged = s.MaxChanged
	back := t.add(compressed, control)
	if back {
		t.Why = fmt.Sprintf("of %d sampled answers compression changed %d (%.1f %%, at least %.1f %%), the policy allows %.1f %%", t.Samples, t.Changed, 100*t.Share.Value, 100*t.Share.Low, 100*t.MaxChanged)
		v.opt.Logger.ErrorContext(ctx, "verify_stepped_back", "tenant", s.Tenant, "profile", s.Profile, "why", t.Why, "effect", "the tenant's prompts of this profile stay exact until the policy changes")
	}
	held := int64(0)
	for _, t := range v.counts {
		if t.Back {
			held++
		}
	}
	v.back.Record(ctx, held)
}

// ask puts the question three times, the compressed one last: it finds what the request itself has left behind.
func (v *Verifier) ask(ctx context.Context, s Sample) (compressed, control Difference, err error) {
	var answers [3]Answer
	for i := range answers {
		body, err := s.Ask(i == 2)
		if err != nil {
			return compressed, control, err
		}
		if answers[i], err = v.post(ctx, s.Path, body); err != nil {
			return compressed, control, err
		}
	}
	return compare(answers[0], answers[2]), compare(answers[0], answers[1]), nil
}

func (v *Verifier) post(ctx context.Context, path string, body []byte) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	if key := v.opt.Key(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := (&http.Client{Transport: v.opt.Transport}).Do(request)
	if err != nil {
		return Answer{}, errors.New("the engine could not be asked")
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("the engine answered %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Answer{}, errors.New("the engine's answer broke off")
	}
	return read(text)
}
