// Package doctor looks at a sidecar's surroundings the way the sidecar will use them, and says of each what is wrong, why, and what
// repairs it. It changes nothing: what it writes to Redis it removes, and no page is taken from a queue.
package doctor

import (
	"errors"
	"net"
	"strings"
	"syscall"
)

// Status of a finding.
type Status string

// The statuses, from good to bad.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is one line of the report.
type Finding struct {
	Check  string `json:"check"`            // what was looked at, such as nats.subscribe
	Status Status `json:"status"`           // ok, warn or fail
	What   string `json:"what"`             // what was found; of a problem its cause
	Remedy string `json:"remedy,omitempty"` // what repairs it
}

// Report is all that was found.
type Report struct {
	Findings []Finding `json:"findings"`
	Failed   int       `json:"failed"`
	Warned   int       `json:"warned"`
}

// OK notes that all is well.
func (r *Report) OK(check, what string) { r.add(Finding{check, OK, what, ""}) }

// Warn notes what works and may be unwanted.
func (r *Report) Warn(check, what, remedy string) { r.add(Finding{check, Warn, what, remedy}) }

// Fail notes what does not work.
func (r *Report) Fail(check, what, remedy string) { r.add(Finding{check, Fail, what, remedy}) }

func (r *Report) add(f Finding) {
	switch f.Status {
	case Warn:
		r.Warned++
	case Fail:
		r.Failed++
	}
	r.Findings = append(r.Findings, f)
}

// Network says in words why a connection to address could not be made, and what to do. ok is false for an error of another kind.
func Network(address string, err error) (what, remedy string, ok bool) {
	var dns *net.DNSError
	var timeout net.Error
	text := err.Error()
	switch {
	case errors.As(err, &dns):
		return "the name " + dns.Name + " cannot be resolved", "check the spelling, the namespace and the cluster's DNS", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at " + address, "start the server, or correct host and port", true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return address + " cannot be reached: no route", "check the network, and the NetworkPolicy of both sides", true
	case strings.Contains(text, "certificate") || strings.Contains(text, "tls:") || strings.Contains(text, "x509"):
		return "TLS with " + address + " fails: " + text, "check the roots (caFile), the server's name in its certificate, and whether both sides speak TLS", true
	case errors.As(err, &timeout) && timeout.Timeout():
		return address + " does not answer", "check the network, firewalls and the NetworkPolicy", true
	case errors.Is(err, syscall.ECONNRESET), strings.Contains(text, "EOF"):
		return address + " closes the connection", "check that it speaks this protocol, and TLS on both sides or on none", true
	}
	return "", "", false
}
