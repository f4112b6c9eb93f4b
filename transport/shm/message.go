package shm

import "github.com/nats-io/nats.go"

// The messages of the Unix socket, one JSON object per packet. docs/reference/page-plane.md describes them for other languages.

// protocol is the version that a hello carries.
const protocol = 1

// maxMessage bounds a packet, bytes.
const maxMessage = 4096

// hello is the sidecar's first packet.
type hello struct {
	Semproxy  int    `json:"semproxy"`  // protocol
	Instance  string `json:"instance"`  // last token of the subjects that reach this sidecar alone
	Challenge string `json:"challenge"` // the body of the attach request
	MaxRegion int64  `json:"max_region"`
	Pages     int    `json:"pages"`    // how many pages may be under way by this socket
	Proof     int64  `json:"proof_ms"` // how long after an attach request pages may come by this socket
}

// demand is a sender's packet.
type demand struct {
	Op      string  `json:"op"`                // add | drop | page
	Size    int64   `json:"size,omitempty"`    // add: of the region, bytes
	File    string  `json:"file,omitempty"`    // add: a name under /dev/shm, where no descriptor comes with the packet
	Region  string  `json:"region,omitempty"`  // drop
	ID      uint64  `json:"id,omitempty"`      // page: the sender's own number for it, not 0
	Headers headers `json:"headers,omitempty"` // page: those of the message that it would be over NATS
}

// answer is the sidecar's packet after each demand: in order, but for those with an id, which come when their page is done.
type answer struct {
	Region  string  `json:"region,omitempty"`  // add: how descriptors name it
	Code    string  `json:"code,omitempty"`    // refused
	Error   string  `json:"error,omitempty"`   // a sentence
	ID      uint64  `json:"id,omitempty"`      // page: of the demand
	Headers headers `json:"headers,omitempty"` // page: those of the reply
	Body    string  `json:"body,omitempty"`    // page: the reply's body, if it is an error
}

// headers are NATS headers with one value each.
type headers map[string]string

func (h headers) nats() nats.Header {
	all := make(nats.Header, len(h))
	for k, v := range h {
		all[k] = []string{v}
	}
	return all
}

func headersOf(all nats.Header) headers {
	h := make(headers, len(all))
	for k, v := range all {
		if len(v) > 0 {
			h[k] = v[0]
		}
	}
	return h
}
