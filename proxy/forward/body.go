package forward

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// budget counts the bytes that may still be held.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *budget) give(n int64) { b.left.Add(n) }

// isJSON says whether a request's body is to be read before it is forwarded. Only a form of parts to a route that is known not
// to produce tokens is not: a body that says to be something else, or nothing, would be read as JSON by some engines.
func isJSON(r *http.Request, route dialect.Route) bool {
	if r.Method != http.MethodPost {
		return false
	}
	if route.Kind == dialect.Generate {
		return true
	}
	return mediaType(r.Header.Get("Content-Type")) != "multipart/form-data"
}

// maxMatched bounds a header's value that rules look at, which is kept with the request.
const maxMatched = 256

// headerValue is the value of a header that is there once; empty for any other.
func headerValue(h http.Header, name string) string {
	if values := h[name]; len(values) == 1 && len(values[0]) <= maxMatched {
		return values[0]
	}
	return ""
}

// mediaType is that of a Content-Type without its parameters; empty when it cannot be read.
func mediaType(header string) string {
	switch header {
	case "application/json", "text/event-stream": // what nearly all say
		return header
	}
	kind, _, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return kind
}

func refuse(status int, code, message string) error {
	return &dialect.Error{Status: status, Code: code, Message: message}
}

// checkJSON refuses what could be read otherwise by the engine than it is here.
func (p *Proxy) checkJSON(r *http.Request) error {
	kind := mediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") || len(r.Header.Values("Content-Type")) > 1 {
		return refuse(http.StatusUnsupportedMediaType, "request.media_type", "the body must be application/json")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return refuse(http.StatusUnsupportedMediaType, "request.encoding", "the body must not be compressed")
	}
	return nil
}

// readBody reads a JSON body whole, within the limits of length, of memory and of time. What is held is counted in
// x.held.
func (p *Proxy) readBody(x *exchange, r *http.Request) ([]byte, error) {
	if r.ContentLength > p.cfg.MaxJSON {
		return nil, errTooLarge
	}
	deadline := http.NewResponseController(x.w)
	if err := deadline.SetReadDeadline(time.Now().Add(p.cfg.ClientTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			grow := min(int64(max(512, len(body))), p.cfg.MaxJSON+1-int64(len(body)))
			if len(body) == 0 && r.ContentLength > 0 {
				grow = r.ContentLength + 1 // one more, to see the end
			}
			if !p.buffered.take(grow) {
				return nil, refuse(http.StatusServiceUnavailable, "request.memory", "the proxy holds as many bodies as it may; try again")
			}
			x.held += grow
			body = append(make([]byte, 0, int64(len(body))+grow), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > p.cfg.MaxJSON:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			if err := deadline.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return nil, err
			}
			return body, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errSlow
		case err != nil:
			return nil, errClientGone
		}
	}
}

var (
	errSlow       = refuse(http.StatusRequestTimeout, "request.slow", "the body did not arrive in time")
	errTooLarge   = refuse(http.StatusRequestEntityTooLarge, "request.too_large", "the body is larger than the proxy accepts")
	errClientGone = errors.New("the client went away")
)

// streamed is a body that passes without being held: bounded in length, and cut when the client stops sending.
type streamed struct {
	io.ReadCloser
	deadline *http.ResponseController
	limit    time.Duration
	left     int64
	err      error
}

// Read is part of io.Reader.
func (s *streamed) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	_ = s.deadline.SetReadDeadline(time.Now().Add(s.limit)) // without support there is none
	n, err := s.ReadCloser.Read(p)
	_ = s.deadline.SetReadDeadline(time.Time{})
	if s.left -= int64(n); s.left < 0 {
		s.err = errTooLarge
		return 0, s.err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}
