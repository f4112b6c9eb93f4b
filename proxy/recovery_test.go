package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

// servePanic serves one route that panics, as an upstream does that dies.
func servePanic(t *testing.T, log io.Writer, handler gin.HandlerFunc) *httptest.Server {
	engine := newEngine(slog.New(slog.NewTextHandler(log, nil)))
	engine.GET("/", handler)
	server := httptest.NewServer(engine)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		server.Close()
	})
	return server
}

func beginStream(c *gin.Context) {
	c.Status(http.StatusOK)
	_, _ = fmt.Fprint(c.Writer, "data: one\n\n")
	c.Writer.Flush()
}

// With gin's own recovery this looks to the client like a clean end of the stream.
func TestAnAbortedStreamIsCutAndNotEnded(t *testing.T) {
	for name, reason := range map[string]any{"aborted": http.ErrAbortHandler, "any other panic": "bug"} {
		t.Run(name, func(t *testing.T) {
			server := servePanic(t, io.Discard, func(c *gin.Context) {
				beginStream(c)
				panic(reason)
			})
			got := ask(t, http.MethodGet, server.URL)
			if got.body != "data: one\n\n" || !errors.Is(got.err, io.ErrUnexpectedEOF) {
				t.Errorf("got %q, %v, want the first event and %v", got.body, got.err, io.ErrUnexpectedEOF)
			}
		})
	}
}

func TestAPanicBeforeTheAnswerIsALogged500(t *testing.T) {
	var log bytes.Buffer
	server := servePanic(t, &log, func(*gin.Context) { panic("bug") })
	got := ask(t, http.MethodGet, server.URL)
	if code := decodeJSON[apiError](t, got.body).Error.Code; got.status != 500 || code != "internal" {
		t.Errorf("got %d %q, want 500 internal", got.status, code)
	}
	if strings.Contains(got.body, "bug") {
		t.Errorf("the client was told the reason: %s", got.body)
	}
	server.Close()
	if text := log.String(); !strings.Contains(text, "request_panicked") || !strings.Contains(text, "reason=bug") {
		t.Errorf("log: got %q, want the panic", text)
	}
}
