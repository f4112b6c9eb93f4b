package dialect_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// What becomes of a route.
type becomes string

const (
	generates becomes = "generates"
	embeds    becomes = "embeds"
	passes    becomes = "passes"
	probes    becomes = "probes"
	refused   becomes = "refused"
)

// engineRoutes are all routes of vLLM 0.32 and 0.33, by the decorators and calls of its sources (those of development mode too), and
// of TGI, by its router. A route of them that is refused says why.
var engineRoutes = []struct {
	engine, method, path string
	becomes              becomes
	why                  string
}{
	{"vllm", "GET", "/docs", refused, "of the operator"},
	{"vllm", "GET", "/fault_tolerance/status", refused, "of the operator"},
	{"vllm", "GET", "/get_world_size", refused, "of the operator"},
	{"vllm", "GET", "/health", probes, ""},
	{"vllm", "GET", "/is_paused", refused, "of the operator"},
	{"vllm", "GET", "/is_sleeping", refused, "of the operator"},
	{"vllm", "GET", "/kv_event_sources", refused, "of the operator"},
	{"vllm", "GET", "/load", refused, "of the operator"},
	{"vllm", "GET", "/metrics", passes, ""},
	{"vllm", "GET", "/ping", refused, "of the operator"},
	{"vllm", "GET", "/ready", refused, "of the operator"},
	{"vllm", "GET", "/readyz", refused, "of the operator"},
	{"vllm", "GET", "/server_info", refused, "of the operator"},
	{"vllm", "GET", "/static", refused, "of the operator"},
	{"vllm", "GET", "/tokenizer_info", refused, "of the operator"},
	{"vllm", "GET", "/v1/models", passes, ""},
	{"vllm", "GET", "/v1/realtime", refused, "generates over a web socket"},
	{"vllm", "GET", "/v1/responses/r1", passes, ""},
	{"vllm", "GET", "/version", passes, ""},
	{"vllm", "GET", "/weight_info", refused, "of the operator"},
	{"vllm", "POST", "/abort_requests", refused, "of the operator"},
	{"vllm", "POST", "/classify", embeds, ""},
	{"vllm", "POST", "/cohere/v2/chat", refused, "generates; takes no salt"},
	{"vllm", "POST", "/cohere/v2/chat/render", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/collective_rpc", refused, "of the operator"},
	{"vllm", "POST", "/detokenize", passes, ""},
	{"vllm", "POST", "/fault_tolerance/apply", refused, "of the operator"},
	{"vllm", "POST", "/finish_weight_update", refused, "of the operator"},
	{"vllm", "POST", "/generative_scoring", refused, "generates; takes no kv_transfer_params"},
	{"vllm", "POST", "/inference/v1/abort_requests", refused, "of the operator"},
	{"vllm", "POST", "/inference/v1/generate", refused, "generates from tokens and features that other processes made"},
	{"vllm", "POST", "/init_weight_transfer_engine", refused, "of the operator"},
	{"vllm", "POST", "/invocations", refused, "any of the other routes, by the shape of its body"},
	{"vllm", "POST", "/is_scaling_elastic_ep", refused, "of the operator"},
	{"vllm", "POST", "/pause", refused, "of the operator"},
	{"vllm", "POST", "/ping", refused, "of the operator"},
	{"vllm", "POST", "/pooling", embeds, ""},
	{"vllm", "POST", "/release_kv_cache_memory", refused, "of the operator"},
	{"vllm", "POST", "/rerank", embeds, ""},
	{"vllm", "POST", "/reset_encoder_cache", refused, "of the operator"},
	{"vllm", "POST", "/reset_mm_cache", refused, "of the operator"},
	{"vllm", "POST", "/reset_prefix_cache", refused, "of the operator"},
	{"vllm", "POST", "/resume", refused, "of the operator"},
	{"vllm", "POST", "/scale_elastic_ep", refused, "of the operator"},
	{"vllm", "POST", "/score", embeds, ""},
	{"vllm", "POST", "/shutdown_weight_transfer_engine", refused, "of the operator"},
	{"vllm", "POST", "/sleep", refused, "of the operator"},
	{"vllm", "POST", "/start_draft_weight_update", refused, "of the operator"},
	{"vllm", "POST", "/start_profile", refused, "of the operator"},
	{"vllm", "POST", "/start_weight_update", refused, "of the operator"},
	{"vllm", "POST", "/stop_profile", refused, "of the operator"},
	{"vllm", "POST", "/tokenize", passes, ""},
	{"vllm", "POST", "/update_weight_version", refused, "of the operator"},
	{"vllm", "POST", "/update_weights", refused, "of the operator"},
	{"vllm", "POST", "/v1/audio/transcriptions", refused, "generates; a form, which takes no salt"},
	{"vllm", "POST", "/v1/audio/translations", refused, "generates; a form, which takes no salt"},
	{"vllm", "POST", "/v1/chat/completions", generates, ""},
	{"vllm", "POST", "/v1/chat/completions/batch", generates, ""},
	{"vllm", "POST", "/v1/chat/completions/derender", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/chat/completions/render", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/completions", generates, ""},
	{"vllm", "POST", "/v1/completions/derender", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/completions/render", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/decisions", refused, "generates; refuses kv_transfer_params, so it cannot be told a policy"},
	{"vllm", "POST", "/v1/embeddings", embeds, ""},
	{"vllm", "POST", "/v1/load_lora_adapter", refused, "of the operator"},
	{"vllm", "POST", "/v1/messages", generates, ""},
	{"vllm", "POST", "/v1/messages/count_tokens", passes, ""},
	{"vllm", "POST", "/v1/messages/render", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/rerank", embeds, ""},
	{"vllm", "POST", "/v1/responses", generates, ""},
	{"vllm", "POST", "/v1/responses/render", refused, "prepares requests for other processes"},
	{"vllm", "POST", "/v1/responses/r1/cancel", passes, ""},
	{"vllm", "POST", "/v1/score", embeds, ""},
	{"vllm", "POST", "/v1/systemone", refused, "generates; refuses kv_transfer_params, so it cannot be told a policy"},
	{"vllm", "POST", "/v1/unload_lora_adapter", refused, "of the operator"},
	{"vllm", "POST", "/v2/embed", embeds, ""},
	{"vllm", "POST", "/v2/rerank", embeds, ""},
	{"vllm", "POST", "/wake_up", refused, "of the operator"},
	{"vllm", "POST", "/weight_checker", refused, "of the operator"},
	{"tgi", "POST", "/", generates, ""},
	{"tgi", "POST", "/generate", generates, ""},
	{"tgi", "POST", "/generate_stream", generates, ""},
	{"tgi", "POST", "/v1/chat/completions", generates, ""},
	{"tgi", "POST", "/v1/completions", generates, ""},
	{"tgi", "POST", "/vertex", refused, "generates; several prompts in a shape of its own"},
	{"tgi", "POST", "/invocations", refused, "any of the other routes, by the shape of its body"},
	{"tgi", "POST", "/tokenize", passes, ""},
	{"tgi", "GET", "/", refused, "the same as /health"},
	{"tgi", "POST", "/chat_tokenize", passes, ""},
	{"tgi", "GET", "/info", passes, ""},
	{"tgi", "GET", "/health", probes, ""},
	{"tgi", "GET", "/ping", refused, "the same as /health"},
	{"tgi", "GET", "/metrics", passes, ""},
	{"tgi", "GET", "/v1/models", passes, ""},
	{"tgi", "GET", "/docs", refused, "of the operator"},
	{"tgi", "POST", "/v2/models/m/versions/1/infer", refused, "generates; KServe's shape"},
	{"tgi", "GET", "/v2/models/m/versions/1", refused, "KServe's"},
	{"tgi", "GET", "/v2/health/ready", refused, "KServe's"},
	{"tgi", "GET", "/v2/health/live", refused, "KServe's"},
	{"tgi", "GET", "/v2", refused, "KServe's"},
	{"tgi", "GET", "/v2/models/m/versions/1/ready", refused, "KServe's"},
}

func TestEveryRouteOfTheEnginesIsDecidedOn(t *testing.T) {
	for _, c := range engineRoutes {
		route, found, allowed := dialect.Lookup(httptest.NewRequestWithContext(t.Context(), c.method, "http://host"+c.path, http.NoBody))
		got := refused
		switch {
		case !found || !allowed || route.Kind == dialect.Named:
		case route.Kind == dialect.Generate:
			got = generates
		case route.Kind == dialect.Embed:
			got = embeds
		case route.Kind == dialect.Probe:
			got = probes
		default:
			got = passes
		}
		if got != c.becomes || (got == refused) != (c.why != "") {
			t.Errorf("%s %s %s: got %s, want %s (%s)", c.engine, c.method, c.path, got, c.becomes, c.why)
		}
	}
}
