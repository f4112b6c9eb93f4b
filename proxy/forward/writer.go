package forward

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// patient is gin's writer with a deadline on every step: a client that does not read what it asked for is cut, however
// long the answer as a whole may take.
type patient struct {
	gin.ResponseWriter
	deadline *http.ResponseController
	limit    time.Duration
	stream   bool // of HTTP/2, which is reset when its deadline passes, also while nothing is written
	set      time.Time
}

func newPatient(w gin.ResponseWriter, r *http.Request, limit time.Duration) *patient {
	p := &patient{ResponseWriter: w, deadline: http.NewResponseController(w), limit: limit, stream: r.ProtoMajor == 2}
	if !p.stream {
		p.begin() // the deadline of the connection's last request may have passed
	}
	return p
}

// begin moves the deadline; on a connection of HTTP/1 at most every tenth of its length. Where there is none, as in a
// test's recorder, nothing happens.
func (p *patient) begin() {
	if now := time.Now(); p.stream || now.Sub(p.set) > p.limit/10 {
		p.set = now
		_ = p.deadline.SetWriteDeadline(now.Add(p.limit))
	}
}

func (p *patient) end() {
	if p.stream {
		_ = p.deadline.SetWriteDeadline(time.Time{})
	}
}

// Write is part of io.Writer.
func (p *patient) Write(b []byte) (int, error) {
	p.begin()
	defer p.end()
	return p.ResponseWriter.Write(b)
}

// Flush is part of http.Flusher.
func (p *patient) Flush() {
	p.begin()
	defer p.end()
	p.ResponseWriter.Flush()
}

// Unwrap is what http.ResponseController follows.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
