package forward_test

import (
	"io"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// What the GenAI conventions ask of a span, for each kind of answer.
func TestSpansFollowTheGenAIConventions(t *testing.T) {
	for _, c := range []struct {
		path, body, answer, kind, name string
		want                           map[attribute.Key]any
	}{
		{"/v1/chat/completions", `{"model":"alias","messages":[],"max_tokens":9}`,
			`{"model":"llama-3-8b","choices":[{"index":0}],"usage":{"prompt_tokens":31,"completion_tokens":17,"prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":8}}}`, "application/json", "chat alias",
			map[attribute.Key]any{semconv.GenAIOperation: "chat", semconv.GenAIModel: "alias", semconv.GenAIResponseModel: "llama-3-8b", semconv.GenAIMaxTokens: int64(9),
				semconv.GenAIInputTokens: int64(31), semconv.GenAIOutputTokens: int64(17), semconv.GenAICachedTokens: int64(16), semconv.GenAIReasoningTokens: int64(8), semconv.GenAIProvider: "vllm"}},
		{"/v1/responses", `{"model":"alias","input":"x","stream":true}`,
			"data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"model\":\"llama-3-8b\",\"usage\":{\"input_tokens\":31,\"output_tokens\":17,\"input_tokens_details\":{\"cached_tokens\":16},\"output_tokens_details\":{\"reasoning_tokens\":8}}}}\n\n", "text/event-stream", "chat alias",
			map[attribute.Key]any{semconv.GenAIOperation: "chat", semconv.GenAIResponseModel: "llama-3-8b", semconv.GenAIInputTokens: int64(31), semconv.GenAICachedTokens: int64(16), semconv.GenAIReasoningTokens: int64(8)}},
		{"/v1/messages", `{"model":"alias","messages":[],"max_tokens":9}`,
			`{"model":"claude","usage":{"input_tokens":11,"cache_read_input_tokens":20,"output_tokens":17}}`, "application/json", "chat alias",
			map[attribute.Key]any{semconv.GenAIResponseModel: "claude", semconv.GenAIInputTokens: int64(31), semconv.GenAICachedTokens: int64(20), semconv.GenAIOutputTokens: int64(17)}},
		{"/v1/rerank", `{"model":"ranker","query":"q","documents":["a"]}`,
			`{"model":"bge","results":[],"usage":{"total_tokens":12}}`, "application/json", "rerank ranker",
			map[attribute.Key]any{semconv.GenAIOperation: "rerank", semconv.GenAIModel: "ranker", semconv.GenAIResponseModel: "bge", semconv.GenAIInputTokens: int64(12)}},
		{"/v1/embeddings", `{"model":"e","input":"x"}`, `{"model":"bge","data":[],"usage":{"prompt_tokens":12,"total_tokens":12}}`, "application/json", "embeddings e",
			map[attribute.Key]any{semconv.GenAIOperation: "embeddings", semconv.GenAIResponseModel: "bge", semconv.GenAIInputTokens: int64(12)}},
	} {
		spans := tracetest.NewSpanRecorder()
		s := startProxy(t, newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			_, _ = io.WriteString(w, c.answer)
		}), func(cfg *forward.Config, _ *forward.ServerConfig) {
			cfg.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		})
		if got := s.call(t, "POST", c.path, acmeKey, c.body); got.status != 200 {
			t.Fatalf("%s: got %d %s", c.path, got.status, got.body)
		}
		s.done(t)
		found := false
		until(t, func() bool {
			for _, span := range spans.Ended() {
				if span.Name() != c.name {
					continue
				}
				found = true
				if got := span.InstrumentationScope().SchemaURL; got != semconv.GenAISchema {
					t.Errorf("%s: got schema %q, want %q", c.path, got, semconv.GenAISchema)
				}
				set := attribute.NewSet(span.Attributes()...)
				for key, want := range c.want {
					if got, _ := set.Value(key); got.AsInterface() != want {
						t.Errorf("%s: %s: got %v, want %v", c.path, key, got.AsInterface(), want)
					}
				}
			}
			return found
		})
	}
}
