package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/proxy/recent"
)

// benchProxy is a proxy with anonymous clients in front of a handler, and the handler's own address.
func benchProxy(b *testing.B, handler http.HandlerFunc) (direct, proxied string) {
	b.Helper()
	engine := httptest.NewServer(handler)
	b.Cleanup(engine.Close)
	target, err := url.Parse(engine.URL)
	if err != nil {
		b.Fatal(err)
	}
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(rules)})
	if err != nil {
		b.Fatal(err)
	}
	who, err := identity.New(identity.Config{Anonymous: "acme"})
	if err != nil {
		b.Fatal(err)
	}
	p, err := forward.New(forward.Config{
		Engine: target, Identity: who, Policy: func() *policy.Set { return set }, Recent: recent.New(1000),
		Admission: limit.New(limit.Options{Concurrent: 100_000, ConcurrentPerTenant: 100_000}),
	})
	if err != nil {
		b.Fatal(err)
	}
	s, err := forward.Listen("127.0.0.1:0", p, forward.ServerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	b.Cleanup(func() {
		_ = s.Close()
		p.Close()
		if err := <-done; err != nil {
			b.Errorf("Serve: got %v, want nil", err)
		}
	})
	return engine.URL, s.URL()
}

// BenchmarkSmallAnswers: what a hop costs. Client, proxy and engine share the machine, so the ratio of proxied to direct is
// about that of the work done, not of the throughput that an engine of its own would see.
func BenchmarkSmallAnswers(b *testing.B) {
	direct, proxied := benchProxy(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":10,"completion_tokens":1}}`)
	})
	body := chat("hello", 200, "")
	for _, connections := range []int{1, 64} {
		for name, base := range map[string]string{"direct": direct, "proxied": proxied} {
			b.Run(fmt.Sprintf("%s/connections=%d", name, connections), func(b *testing.B) {
				transport := &http.Transport{MaxIdleConnsPerHost: connections}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				b.ReportAllocs()
				b.SetParallelism(max(1, connections/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						response, err := client.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(body)) //nolint:noctx // of a benchmark
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, response.Body)
						_ = response.Body.Close()
					}
				})
			})
		}
	}
}

// BenchmarkFirstEvent: how much later the first event of a stream is there.
func BenchmarkFirstEvent(b *testing.B) {
	direct, proxied := benchProxy(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"t\"}}]}\n\n")
		w.(http.Flusher).Flush()
	})
	body := chat("hello", 200, `,"stream":true`)
	for name, base := range map[string]string{"direct": direct, "proxied": proxied} {
		b.Run(name, func(b *testing.B) {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for b.Loop() {
				response, err := client.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(body)) //nolint:noctx // of a benchmark
				if err != nil {
					b.Fatal(err)
				}
				if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkIdleStreams: memory of a stream that waits, of client, proxy and engine together.
func BenchmarkIdleStreams(b *testing.B) {
	release := make(chan struct{})
	direct, proxied := benchProxy(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {}\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	const streams = 2000
	for name, base := range map[string]string{"direct": direct, "proxied": proxied} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				transport := &http.Transport{}
				client := &http.Client{Transport: transport}
				before := memory()
				open := make([]io.Closer, 0, streams)
				for range streams {
					response, err := client.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(`{"stream":true}`)) //nolint:noctx,bodyclose // closed below, all of them
					if err != nil {
						b.Fatal(err)
					}
					open = append(open, response.Body)
				}
				b.ReportMetric(float64(memory()-before)/streams, "B/stream")
				for _, body := range open {
					_ = body.Close()
				}
				transport.CloseIdleConnections()
			}
		})
	}
	close(release)
}

// memory is what the heap and the stacks hold.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
