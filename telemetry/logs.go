package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/trace"
)

// newLogger writes events to cfg.LogOutput.
func newLogger(cfg Config) (*slog.Logger, error) {
	var level slog.Level
	switch cfg.LogLevel {
	case "", "info":
		level = slog.LevelInfo
	case "debug":
		level = slog.LevelDebug
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		return nil, fmt.Errorf("log level: must be debug, info, warn or error, got %q", cfg.LogLevel)
	}
	var out io.Writer = os.Stderr
	if cfg.LogOutput != nil {
		out = cfg.LogOutput
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutPayload}
	switch cfg.LogFormat {
	case "", "text":
		return slog.New(newTraceHandler(slog.NewTextHandler(out, options))), nil
	case "json":
		return slog.New(newTraceHandler(slog.NewJSONHandler(out, options))), nil
	default:
		return nil, fmt.Errorf("log format: must be text or json, got %q", cfg.LogFormat)
	}
}

// withoutPayload writes the length of bytes and numbers in bulk instead of their content: a page never reaches the
// log, whoever tries. Everything else passes as it is.
func withoutPayload(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() != slog.KindAny {
		return attr
	}
	n := -1
	switch v := attr.Value.Any().(type) {
	case []byte:
		n = len(v)
	case []uint16:
		n = len(v)
	case []int32:
		n = len(v)
	case []float32:
		n = len(v)
	case []float64:
		n = len(v)
	}
	if n >= 0 {
		attr.Value = slog.StringValue(fmt.Sprintf("[%d values of %T]", n, attr.Value.Any()))
	}
	return attr
}

// traceHandler adds trace_id and span_id at the top level of each record, also where the logger has open groups.
type traceHandler struct {
	base slog.Handler                      // without groups, and what was added before the first
	with []func(slog.Handler) slog.Handler // the first group and all that came after it
	full slog.Handler                      // base with all of that
}

func newTraceHandler(base slog.Handler) *traceHandler { return &traceHandler{base: base, full: base} }

// Enabled is part of slog.Handler.
func (h *traceHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.base.Enabled(ctx, level)
}

// Handle is part of slog.Handler.
func (h *traceHandler) Handle(ctx context.Context, record slog.Record) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return h.full.Handle(ctx, record)
	}
	ids := []slog.Attr{slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String())}
	if len(h.with) == 0 {
		record = record.Clone()
		record.AddAttrs(ids...)
		return h.base.Handle(ctx, record)
	}
	handler := h.base.WithAttrs(ids)
	for _, with := range h.with {
		handler = with(handler)
	}
	return handler.Handle(ctx, record)
}

// WithAttrs is part of slog.Handler.
func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.with) == 0 {
		return newTraceHandler(h.base.WithAttrs(attrs))
	}
	return h.and(func(inner slog.Handler) slog.Handler { return inner.WithAttrs(attrs) })
}

// WithGroup is part of slog.Handler.
func (h *traceHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.and(func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}

func (h *traceHandler) and(with func(slog.Handler) slog.Handler) slog.Handler {
	return &traceHandler{base: h.base, with: append(h.with[:len(h.with):len(h.with)], with), full: with(h.full)}
}
