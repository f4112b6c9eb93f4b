package proxybench

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Headers of a request say how the engine is to behave; every proxy passes them on.
const (
	headerThink = "X-Bench-Think" // how long an answer takes
	headerHold  = "X-Bench-Hold"  // a stream goes on until its client leaves
)

const (
	smallAnswer = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",` +
		`"content":"Hello! How can I help you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":256,"completion_tokens":9,"total_tokens":265}}`
	firstEvent = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hello"}}]}` + "\n\n"
	lastEvents = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":256,` +
		`"completion_tokens":1,"total_tokens":257}}` + "\n\ndata: [DONE]\n\n"
)

// Engine serves an engine's stand-in until ctx ends.
func Engine(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the connection is broken
	}
	if r.Method != http.MethodPost { // health, metrics
		return
	}
	if think, err := time.ParseDuration(r.Header.Get(headerThink)); err == nil && think > 0 {
		time.Sleep(think)
	}
	if !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, smallAnswer) // a client that left is no concern of the engine's
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, firstEvent)
	if http.NewResponseController(w).Flush() != nil {
		return
	}
	if r.Header.Get(headerHold) != "" {
		<-r.Context().Done()
		return
	}
	_, _ = io.WriteString(w, lastEvents)
}
