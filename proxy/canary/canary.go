package canary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Params are what the engine's connector is told of one answer.
type Params struct {
	KV   any
	Salt string // a new one for each answer, so that none is made from another's prefix
}

// Plane is what the canary needs of the proxy.
type Plane interface {
	// Digest is that of what the policy would do with the canary's prompt; an error when it compresses nothing there.
	Digest(model string) (string, error)
	// Begin is called before an answer that is to be compressed, or not; the object names it.
	Begin(model string, compress bool) (p Params, object string, err error)
	// Compressed says how many pages of an object were compressed.
	Compressed(object string) int
}

// Options adjust a Canary. Plane is required; the zero value of every other field is useful.
type Options struct {
	Plane     Plane
	Key       func() string // the engine's bearer token; nil or "": none
	Transport http.RoundTripper
	Model     string        // "": the first that the engine names
	Tokens    int           // of the answer; 0: 32
	Limit     Limit         // zero: agreement of 0.9, log probabilities 0.5 apart
	Every     time.Duration // how often the engine is looked at; 0: 5 s
	Timeout   time.Duration // for one question; 0: 1 min
	Meter     metric.MeterProvider
	Logger    *slog.Logger
}

// Outcomes of a run.
const (
	Passed       = "passed"
	Failed       = "failed"       // the compressed answer differs by more than the limit
	Inconclusive = "inconclusive" // nothing could be compared
)

// Canary watches one engine. It is safe for concurrent use.
type Canary struct {
	url    *url.URL
	opt    Options
	client *http.Client
	runs   metric.Int64Counter
	held   metric.Int64Gauge

	mu  sync.Mutex
	off string // why nothing is compressed; empty: it may be
}

// New prepares; Run works. engine is a base URL of http, https or h2c, which Transport speaks.
func New(engine *url.URL, o Options) (*Canary, error) {
	if o.Key == nil {
		o.Key = func() string { return "" }
	}
	if o.Tokens <= 0 {
		o.Tokens = 32
	}
	if o.Limit == (Limit{}) {
		o.Limit = Limit{Agreement: 0.9, Logprob: 0.5}
	}
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	target := *engine
	if target.Scheme == "h2c" {
		target.Scheme = "http"
	}
	c := &Canary{url: &target, opt: o, client: &http.Client{Transport: o.Transport}, off: "the canary has not been answered yet"}
	meter := o.Meter.Meter("github.com/semproxy/semproxy/proxy/canary")
	for _, m := range semconv.Metrics() {
		var err error
		switch m.Name {
		case semconv.MetricCanaryRuns:
			c.runs, err = meter.Int64Counter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description))
		case semconv.MetricCanaryHeld:
			c.held, err = meter.Int64Gauge(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description))
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Off says why nothing is to be compressed; empty when the canary has passed.
func (c *Canary) Off() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

func (c *Canary) set(ctx context.Context, off string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
	held := int64(0)
	if off != "" {
		held = 1
	}
	c.held.Record(ctx, held)
}

// Run watches until ctx ends, then returns nil.
func (c *Canary) Run(ctx context.Context) error {
	defer c.client.CloseIdleConnections()
	tick := time.NewTicker(c.opt.Every)
	defer tick.Stop()
	w := watched{started: -1}
	for {
		if why := w.look(ctx, c); why != "" && ctx.Err() == nil {
			if w.done { // else it says already why it is held
				c.set(ctx, "the canary is asked anew, because "+why)
			}
			w.done = c.judge(ctx, why, &w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watched is what is known of the engine.
type watched struct {
	done    bool    // a run has come to an end that holds: passed or failed
	away    bool    // it did not answer
	started float64 // when its process began
	digest  string  // of the policy that was judged
	model   string

	retry time.Time     // when a run that came to no end is due again
	pause time.Duration // before the next of those
	said  string        // what was logged last
}

// maxPause is the longest time between runs that come to no end: each costs the engine four answers.
const maxPause = 5 * time.Minute

// look says why a run is due; empty when none is, or when the engine is away.
func (w *watched) look(ctx context.Context, c *Canary) string {
	started, err := c.started(ctx)
	if err != nil {
		if !w.away && w.done && ctx.Err() == nil {
			c.opt.Logger.WarnContext(ctx, "engine_away", "error", err.Error(), "effect", "the canary is asked anew when it is back")
		}
		w.away = true
		return ""
	}
	why := ""
	digest, _ := c.opt.Plane.Digest(w.model) // what it says is seen when the run begins
	switch {
	case w.away:
		why = "the engine was away"
	case started != w.started:
		why = "the engine has started anew"
	case digest != w.digest:
		why = "the policy has changed"
	case !w.done && !time.Now().Before(w.retry):
		why = "it could not be judged"
	}
	w.away, w.started = false, started
	return why
}

// judge runs the canary and says whether its outcome holds.
func (c *Canary) judge(ctx context.Context, why string, w *watched) bool {
	d, err := c.ask(ctx, w)
	if ctx.Err() != nil {
		return false
	}
	w.pause = min(max(2*w.pause, c.opt.Every), maxPause)
	w.retry = time.Now().Add(w.pause)
	outcome, off := Passed, ""
	var failed *failedError
	switch {
	case errors.As(err, &failed):
		outcome, off = Failed, failed.Error()
	case err != nil:
		outcome, off = Inconclusive, "the canary could not be judged: "+err.Error()
	}
	c.runs.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(semconv.Outcome.String(outcome))))
	c.set(ctx, off)
	args := []any{"outcome", outcome, "because", why, "model", w.model, "agreement", d.Agreement, "logprob_difference", d.Logprob}
	if outcome != Inconclusive {
		w.pause = 0
	}
	if off == w.said && off != "" {
		return outcome == Failed
	}
	if w.said = off; off == "" {
		c.opt.Logger.InfoContext(ctx, "canary", args...)
		return true
	}
	c.opt.Logger.ErrorContext(ctx, "canary", append(args, "why", off, "effect", "prompts stay exact on this engine")...)
	return outcome == Failed
}

type failedError struct{ d Difference }

func (e *failedError) Error() string {
	return "the canary's answer differs with compressed KV: " + e.d.String()
}

// ask puts the question four times.
func (c *Canary) ask(ctx context.Context, w *watched) (Difference, error) {
	var err error
	if w.model, err = c.model(ctx); err != nil {
		return Difference{}, err
	}
	if w.digest, err = c.opt.Plane.Digest(w.model); err != nil {
		return Difference{}, err
	}
	var answers [4]Answer
	var objects [4]string
	var params [4]Params
	for i := range answers {
		if params[i], objects[i], err = c.opt.Plane.Begin(w.model, i >= 2); err != nil {
			return Difference{}, err
		}
		if i == 3 { // finds what the one before it has left behind
			params[i].Salt = params[2].Salt
		}
		if answers[i], err = c.complete(ctx, w.model, params[i]); err != nil {
			return Difference{}, err
		}
	}
	if d := Compare(answers[0], answers[1]); !c.opt.Limit.holds(d) {
		return d, fmt.Errorf("the engine does not repeat itself without compression either: %s", d)
	}
	if c.opt.Plane.Compressed(objects[2])+c.opt.Plane.Compressed(objects[3]) == 0 {
		return Difference{}, errors.New("no page of it was compressed: is there an adapter, and does its tenant's policy compress?")
	}
	d := Compare(answers[0], answers[2])
	if again := Compare(answers[0], answers[3]); again.Agreement < d.Agreement || again.Agreement == d.Agreement && again.Logprob > d.Logprob {
		d = again
	}
	if !c.opt.Limit.holds(d) {
		return d, &failedError{d}
	}
	return d, nil
}
