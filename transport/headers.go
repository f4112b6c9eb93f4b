package transport

import (
	"strings"

	"github.com/nats-io/nats.go"
)

// Headers of a reply. Every reply has HeaderStatus; the others come with an error.
const (
	HeaderStatus     = "Semproxy-Status"         // ok | error
	HeaderCode       = "Semproxy-Code"           // the stable code
	HeaderRetryable  = "Semproxy-Retryable"      // true | false
	HeaderRetryAfter = "Semproxy-Retry-After-Ms" // with a retryable error: milliseconds to wait, 1 or more
)

// Values of HeaderStatus.
const (
	StatusOK    = "ok"
	StatusError = "error"
)

// HeaderCarrier reads and writes trace context in NATS headers. nats.Header is case-sensitive and senders differ
// (traceparent, Traceparent, TRACEPARENT): Get ignores case, Set writes lower case and removes other spellings.
// It is not safe for concurrent use.
type HeaderCarrier nats.Header

// Get returns the first value of key in any case, lower case first, or "".
func (c HeaderCarrier) Get(key string) string {
	if v := c[strings.ToLower(key)]; len(v) > 0 {
		return v[0]
	}
	for k, v := range c {
		if len(v) > 0 && strings.EqualFold(k, key) {
			return v[0]
		}
	}
	return ""
}

// Set stores value under key in lower case, in place of any other spelling. The carrier must not be nil.
func (c HeaderCarrier) Set(key, value string) {
	for k := range c {
		if strings.EqualFold(k, key) {
			delete(c, k)
		}
	}
	c[strings.ToLower(key)] = []string{value}
}

// Keys lists the keys as they are spelled.
func (c HeaderCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
