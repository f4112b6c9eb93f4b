package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveAdmin serves on a free loopback port until the test ends, and wants that to end well.
func serveAdmin(t *testing.T, cfg AdminConfig) *Admin {
	t.Helper()
	admin, err := ListenAdmin("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatalf("ListenAdmin: got %v, want nil", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	return admin
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func ask(t *testing.T, method, url string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%s %s: got %v, want an answer", method, url, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), err}
}

func decodeJSON[T any](t *testing.T, body string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(body), &value); err != nil {
		t.Fatalf("body %q: got %v, want JSON", body, err)
	}
	return value
}
