package pipeline

import (
	"context"
	"io"
	"log/slog"
	"math"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

const scope = "github.com/semproxy/semproxy/pipeline"

func (c Config) withDefaults() Config {
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider()
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.Limits == (page.Limits{}) {
		c.Limits = page.DefaultLimits()
	}
	return c
}

// instruments are the metrics of the page plane that need to know what a page is.
type instruments struct {
	pages, tokensIn, coresOut, bytesIn, bytesSaved metric.Int64Counter
	ratio, attentionError, keySimilarity, duration metric.Float64Histogram
	label                                          *semconv.TenantLabel
	series                                         *semconv.Series
	decide, compress, store                        metric.MeasurementOption
}

func newInstruments(p metric.MeterProvider) (*instruments, error) {
	m := &instruments{label: semconv.NewTenantLabel(0), series: semconv.NewSeries(0)}
	meter := p.Meter(scope)
	counters := map[string]*metric.Int64Counter{
		semconv.MetricPages: &m.pages, semconv.MetricTokensIn: &m.tokensIn, semconv.MetricCoresOut: &m.coresOut,
		semconv.MetricBytesIn: &m.bytesIn, semconv.MetricBytesSaved: &m.bytesSaved,
	}
	histograms := map[string]*metric.Float64Histogram{
		semconv.MetricRatio: &m.ratio, semconv.MetricAttentionError: &m.attentionError,
		semconv.MetricKeySimilarity: &m.keySimilarity, semconv.MetricPageDuration: &m.duration,
	}
	var err error
	for _, x := range semconv.Metrics() {
		if c := counters[x.Name]; c != nil {
			if *c, err = meter.Int64Counter(x.Name, metric.WithUnit(x.Unit), metric.WithDescription(x.Description)); err != nil {
				return nil, err
			}
		}
		if h := histograms[x.Name]; h != nil {
			if *h, err = meter.Float64Histogram(x.Name, metric.WithUnit(x.Unit), metric.WithDescription(x.Description)); err != nil {
				return nil, err
			}
		}
	}
	stage := func(s string) metric.MeasurementOption { return metric.WithAttributes(semconv.Stage.String(s)) }
	m.decide, m.compress, m.store = stage(semconv.StageDecide), stage(semconv.StageCompress), stage(semconv.StageStore)
	return m, nil
}

// observe writes a page's record: metrics, and the attributes of the span that the caller started for it.
// A tenant that the policy does not name shares the label of "unknown".
func (p *Pipeline) observe(ctx context.Context, j *job, err error) {
	m, r := p.metrics, &j.report
	entry, ok := j.rules.Resolve(j.tenant)
	if !ok {
		entry = "unknown"
	}
	tenant := m.label.Attribute(entry)
	outcome := r.Outcome
	if err != nil {
		outcome = semconv.OutcomeRefused
		if codes.Retryable(CodeOf(err)) {
			outcome = semconv.OutcomeRetry
		}
	}
	by := metric.WithAttributes(tenant)
	labels := []attribute.KeyValue{tenant, semconv.Outcome.String(outcome)}
	if err != nil { // of the others, the ratio's histogram counts them
		labels = append(labels, m.series.Of(r.Policy, r.Model, r.Device)...)
	}
	m.pages.Add(ctx, 1, metric.WithAttributes(labels...))
	m.bytesIn.Add(ctx, int64(r.BytesIn), by)
	span := trace.SpanFromContext(ctx)
	if err != nil {
		return
	}
	span.SetAttributes(r.attributes()...)
	span.SetAttributes(semconv.Sequence.String(r.Sequence), semconv.BytesIn.Int(r.BytesIn), semconv.BytesOut.Int(r.BytesOut))
	m.tokensIn.Add(ctx, int64(r.Tokens), by)
	m.coresOut.Add(ctx, int64(r.Cores), by)
	m.bytesSaved.Add(ctx, int64(max(r.BytesIn-r.BytesOut, 0)), by)
	what := metric.WithAttributes(append(m.series.Of(r.Policy, r.Model, r.Device), tenant)...)
	record(ctx, m.ratio, r.Ratio, what)
	m.seconds(ctx, r.Stages.Decide, m.decide)
	if r.Outcome == semconv.OutcomeStored {
		return
	}
	record(ctx, m.keySimilarity, r.KeySimilarity, what)
	if r.Measured {
		record(ctx, m.attentionError, r.AttentionError, what)
	}
	m.seconds(ctx, r.Stages.Compress, m.compress)
	if r.Object != "" {
		m.seconds(ctx, r.Stages.Store, m.store)
	}
}

// record leaves out what is no number: a page of zeros has no direction, and one NaN would spoil a sum for ever.
func record(ctx context.Context, h metric.Float64Histogram, x float64, by metric.MeasurementOption) {
	if !math.IsNaN(x) && !math.IsInf(x, 0) {
		h.Record(ctx, x, by)
	}
}

// atZero makes the counters of the tenants that the policy names be there before the first page: what begins at one has not
// increased.
func (m *instruments) atZero(ctx context.Context, tenants []string) {
	for _, name := range tenants {
		tenant := m.label.Attribute(name)
		for _, outcome := range []string{semconv.OutcomeCompressed, semconv.OutcomeExact, semconv.OutcomeStored, semconv.OutcomeRefused, semconv.OutcomeRetry} {
			m.pages.Add(ctx, 0, metric.WithAttributes(tenant, semconv.Outcome.String(outcome)))
		}
	}
}

func (m *instruments) seconds(ctx context.Context, d time.Duration, stage metric.MeasurementOption) {
	m.duration.Record(ctx, d.Seconds(), stage)
}

func parse(s string) float64 {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return x
}
