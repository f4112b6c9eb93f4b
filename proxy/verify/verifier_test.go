package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine repeats itself: what it answers depends on the question and on whether its KV is compressed, and harmful says whether the
// latter changes it.
func engine(t *testing.T, harmful *atomic.Bool, asked *atomic.Int64) *url.URL {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		var q struct {
			N        int
			Compress bool
		}
		if json.Unmarshal(body, &q) != nil || q.N < 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		token, logprob := fmt.Sprint("t", q.N), -0.5
		if q.Compress {
			if logprob = -0.75; harmful.Load() {
				token = "other"
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"choices": []any{map[string]any{"message": map[string]string{"content": "a" + token}, "logprobs": map[string]any{
			"content": []any{map[string]any{"token": "a", "logprob": logprob}, map[string]any{"token": token, "logprob": logprob}},
		}}}})
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func sample(n int, digest string) verify.Sample {
	return verify.Sample{Tenant: "acme", Profile: "half", Digest: digest, MaxChanged: 0.02, Path: "/v1/chat/completions",
		Ask: func(compress bool) ([]byte, error) { return json.Marshal(map[string]any{"n": n, "compress": compress}) }}
}

func start(t *testing.T, u *url.URL, o verify.Options) *verify.Verifier {
	t.Helper()
	transport := &http.Transport{}
	o.Transport = transport
	v, err := verify.New(u, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		transport.CloseIdleConnections()
	})
	return v
}

// samples of a tenant and digest that have been taken.
func samples(v *verify.Verifier, digest string) (n int, t verify.Counts) {
	for _, one := range v.List() {
		if one.Digest == digest {
			return one.Samples, one
		}
	}
	return 0, verify.Counts{}
}

func offer(t *testing.T, v *verify.Verifier, n int, digest string) {
	t.Helper()
	before, _ := samples(v, digest)
	v.Offer(sample(n, digest))
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if now, _ := samples(v, digest); now > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sample was not taken")
		}
	}
}

func TestAHarmfulProfileIsSteppedBackAndAHarmlessOneIsNot(t *testing.T) {
	var harmful atomic.Bool
	var asked atomic.Int64
	v := start(t, engine(t, &harmful, &asked), verify.Options{Every: -1})
	for i := range 64 {
		offer(t, v, i, "harmless")
	}
	if _, got := samples(v, "harmless"); got.Back || got.Changed != 0 || got.Logprob.Value < 0.249 || got.Logprob.Value > 0.251 || v.Held("acme", "harmless") != "" {
		t.Errorf("a harmless profile: got %+v, want it kept, and log probabilities 0.25 apart", got)
	}
	harmful.Store(true)
	for i := range 16 {
		offer(t, v, i, "harmful")
	}
	if _, got := samples(v, "harmful"); !got.Back || got.Changed != 16 || got.FirstDiff != 1 || got.Control != 0 {
		t.Errorf("a harmful profile: got %+v, want it stepped back after 16 samples that differ from token 1 on", got)
	}
	if v.Held("acme", "harmful") == "" || v.Held("globex", "harmful") != "" || v.Held("acme", "harmless") != "" {
		t.Error("it is stepped back for this tenant and profile alone")
	}
	if got := asked.Load(); got != 3*80 {
		t.Errorf("the engine was asked %d times, want three times for each of 80", got)
	}
}

func TestNothingIsAskedOfAnEngineWithoutRoomAndNoMoreWaitThanMay(t *testing.T) {
	var harmful atomic.Bool
	var asked atomic.Int64
	v := start(t, engine(t, &harmful, &asked), verify.Options{Every: -1, Room: func() bool { return false }})
	for i := range 100 {
		v.Offer(sample(i, "d"))
	}
	for v.Wants(1) == false { // until all that waited are looked at
		runtime.Gosched()
	}
	if n, _ := samples(v, "d"); n != 0 || asked.Load() != 0 {
		t.Errorf("got %d samples and %d questions, want none", n, asked.Load())
	}
	if v.Wants(0) {
		t.Error("a share of 0: got true, want false")
	}
}
