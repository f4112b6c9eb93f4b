package forward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// gauges of vLLM, newest name first: the share of its KV memory that is in use.
var gauges = []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"}

// KVUsage follows an engine's KV memory through its /metrics.
type KVUsage struct {
	url    string
	key    func() string
	client *http.Client
	every  time.Duration
	log    *slog.Logger
	value  atomic.Uint64 // bits of the share; NaN: not known
}

// NewKVUsage prepares; Run follows. key may be nil; every 0: two seconds.
func NewKVUsage(engine *url.URL, key func() string, every time.Duration, log *slog.Logger) *KVUsage {
	orElse(&every, 2*time.Second)
	if key == nil {
		key = func() string { return "" }
	}
	target := *engine
	target.Path = "/metrics"
	transport := newTransport(Config{Engine: engine, IdleConns: 1, KeepAlive: 4 * time.Second, HeaderTimeout: 2 * time.Second})
	if target.Scheme == "h2c" {
		target.Scheme = "http"
	}
	k := &KVUsage{url: target.String(), key: key, every: every, log: log, client: &http.Client{Timeout: 5 * time.Second, Transport: transport}}
	k.value.Store(math.Float64bits(math.NaN()))
	return k
}

// Value is the share in use, 0 to 1; -1 when it is not known.
func (k *KVUsage) Value() float64 {
	if v := math.Float64frombits(k.value.Load()); !math.IsNaN(v) {
		return v
	}
	return -1
}

// Run asks until ctx ends, then returns nil.
func (k *KVUsage) Run(ctx context.Context) error {
	defer k.client.CloseIdleConnections()
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	failing := false
	for {
		value, err := k.ask(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			k.log.Warn("engine_metrics_unreadable", "error", err.Error(), "effect", "the cost gate does not know the engine's KV memory")
		}
		failing = err != nil
		k.value.Store(math.Float64bits(value))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ask is NaN with an error, and without one when the engine has no such gauge.
func (k *KVUsage) ask(ctx context.Context) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, http.NoBody)
	if err != nil {
		return math.NaN(), err
	}
	if key := k.key(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := k.client.Do(request)
	if err != nil {
		return math.NaN(), err
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusOK {
		return math.NaN(), fmt.Errorf("the engine's /metrics answered %s", response.Status)
	}
	return readGauge(io.LimitReader(response.Body, 8<<20)), nil
}

// readGauge is the largest value of the gauge among its series: the fullest of an engine's ranks is what limits it.
func readGauge(text io.Reader) float64 {
	found := map[string]float64{}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		for _, name := range gauges {
			rest, ok := strings.CutPrefix(lines.Text(), name)
			if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			if i := strings.LastIndexByte(rest, '}'); i >= 0 {
				rest = rest[i+1:]
			}
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				continue
			}
			if v, err := strconv.ParseFloat(fields[0], 64); err == nil && v >= 0 && v <= 1 {
				found[name] = max(found[name], v)
			}
		}
	}
	for _, name := range gauges {
		if v, ok := found[name]; ok {
			return v
		}
	}
	return math.NaN()
}
