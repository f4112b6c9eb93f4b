package transport

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// natsLog sends the embedded server's log to slog: notices at debug level, the rest as it is. A fatal line is kept,
// because the server reports through it that it could not listen.
type natsLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	fatal  string
}

const natsLogMessage = "embedded nats-server"

func (l *natsLog) Noticef(format string, v ...any) {
	l.logger.Debug(natsLogMessage, "detail", fmt.Sprintf(format, v...))
}

// plaintext begins a warning about passwords that are not bcrypt hashes. It is always said, because the sidecar's own
// password (random, in memory, for this process only) is none, and so would tell the operator nothing.
const plaintext = "Plaintext passwords detected"

func (l *natsLog) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, plaintext) {
		return
	}
	l.logger.Warn(natsLogMessage, "detail", fmt.Sprintf(format, v...))
}

func (l *natsLog) Errorf(format string, v ...any) {
	l.logger.Error(natsLogMessage, "detail", fmt.Sprintf(format, v...))
}

func (l *natsLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = fmt.Sprintf(format, v...)
}

// Debugf and Tracef say nothing: they would show subjects and payloads.
func (*natsLog) Debugf(string, ...any) {}
func (*natsLog) Tracef(string, ...any) {}

func (l *natsLog) lastFatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == "" {
		return "no answer in time"
	}
	return l.fatal
}

// readyWithin is how long to wait for readiness: not at all once a fatal line was written.
func (l *natsLog) readyWithin(d time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal != "" {
		return 0
	}
	return d
}
