package forward_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/forward"
)

func TestTheEnginesMemoryIsFollowed(t *testing.T) {
	var text atomic.Pointer[string]
	set := func(s string) { text.Store(&s) }
	set("")
	target := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" || r.Header.Get("Authorization") != "Bearer k" || *text.Load() == "down" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprint(w, *text.Load())
	})
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	k := forward.NewKVUsage(u, func() string { return "k" }, time.Millisecond, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	for _, c := range []struct {
		text string
		want float64
	}{
		{"vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a b}\"} 0.25 1700000000\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n", 0.75},
		{"vllm:gpu_cache_usage_perc 0.5\n", 0.5},
		{"vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.1\n", 0.1},
		{"down", -1},
		{"vllm:kv_cache_usage_perc 0\n", 0},
		{"# HELP vllm:kv_cache_usage_perc x\nvllm:kv_cache_usage_percent 0.5\nvllm:kv_cache_usage_perc NaN\nvllm:kv_cache_usage_perc 7\n", -1},
	} {
		set(c.text)
		until(t, func() bool { return k.Value() == c.want })
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if n := strings.Count(log.String(), "engine_metrics_unreadable"); n != 1 {
		t.Errorf("the failure is in the log %d times, want once:\n%s", n, log.String())
	}
}
