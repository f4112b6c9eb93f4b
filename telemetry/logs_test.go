package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry"
)

var spanContext = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})

const traceID, spanID = "01000000000000000000000000000000", "0200000000000000"

// logged is the one JSON line that write makes, without time, level and message.
func logged(t *testing.T, write func(logger *slog.Logger)) map[string]any {
	t.Helper()
	var out buffer
	write(setup(t, telemetry.Config{LogFormat: "json", LogOutput: &out}).Logger)
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatalf("log line %q: %v", out.String(), err)
	}
	delete(line, "time")
	delete(line, "level")
	delete(line, "msg")
	return line
}

func TestALineNamesItsTraceAtTheTopLevel(t *testing.T) {
	ctx := trace.ContextWithSpanContext(t.Context(), spanContext)
	for name, c := range map[string]struct {
		write func(logger *slog.Logger)
		want  map[string]any
	}{
		"plain": {
			func(l *slog.Logger) { l.InfoContext(ctx, "page_done", "tenant", "acme") },
			map[string]any{"trace_id": traceID, "span_id": spanID, "tenant": "acme"},
		},
		"with attributes": {
			func(l *slog.Logger) { l.With("a", 1).InfoContext(ctx, "page_done", "b", 2) },
			map[string]any{"trace_id": traceID, "span_id": spanID, "a": 1.0, "b": 2.0},
		},
		"in groups": {
			func(l *slog.Logger) {
				l.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h").InfoContext(ctx, "page_done", "c", 3)
			},
			map[string]any{
				"trace_id": traceID, "span_id": spanID, "a": 1.0,
				"g": map[string]any{"b": 2.0, "h": map[string]any{"c": 3.0}},
			},
		},
		"no span": {
			func(l *slog.Logger) { l.WithGroup("g").InfoContext(context.Background(), "page_done", "a", 1) },
			map[string]any{"g": map[string]any{"a": 1.0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := logged(t, c.write); !reflect.DeepEqual(got, c.want) {
				t.Errorf("line: got %v, want %v", got, c.want)
			}
		})
	}
}

func TestLoggersOfOneParentDoNotShareGroups(t *testing.T) {
	ctx := trace.ContextWithSpanContext(t.Context(), spanContext)
	got := logged(t, func(l *slog.Logger) {
		parent := l.WithGroup("g").With("a", 1).With("b", 2)
		_ = parent.With("wrong", 1)
		right := parent.With("right", 1)
		_ = parent.With("wrong", 2)
		right.InfoContext(ctx, "page_done")
	})
	if want := map[string]any{"a": 1.0, "b": 2.0, "right": 1.0}; !reflect.DeepEqual(got["g"], want) {
		t.Errorf("group: got %v, want %v", got["g"], want)
	}
}

func TestPayloadsAreNeverWrittenAndNothingElseIsChanged(t *testing.T) {
	got := logged(t, func(l *slog.Logger) {
		l.Info("page_done", "blob", []byte("secret"), "keys", []float32{1, 2}, slog.Group("g", "ids", []int32{7}),
			"error", errors.New("sentence"), "names", []string{"a"}, "text", "secret-looking text is text")
	})
	want := map[string]any{
		"blob": "[6 values of []uint8]", "keys": "[2 values of []float32]", "g": map[string]any{"ids": "[1 values of []int32]"},
		"error": "sentence", "names": []any{"a"}, "text": "secret-looking text is text",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("line: got %v, want %v", got, want)
	}
}

func TestLinesBelowTheLevelAreNotWritten(t *testing.T) {
	for level, want := range map[string]int{"debug": 4, "": 3, "info": 3, "warn": 2, "error": 1} {
		var out buffer
		logger := setup(t, telemetry.Config{LogLevel: level, LogOutput: &out}).Logger
		logger.Debug("a")
		logger.Info("a")
		logger.Warn("a")
		logger.Error("a")
		if got := strings.Count(out.String(), "\n"); got != want {
			t.Errorf("lines at level %q: got %d, want %d", level, got, want)
		}
	}
}

func TestOpenTelemetrysErrorsAreLogged(t *testing.T) {
	got := logged(t, func(*slog.Logger) { otel.Handle(errors.New("no route")) })
	if want := map[string]any{"error": "no route"}; !reflect.DeepEqual(got, want) {
		t.Errorf("line: got %v, want %v", got, want)
	}
}
