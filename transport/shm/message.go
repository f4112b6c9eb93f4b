package shm

// The messages of the Unix socket, one JSON object per packet. docs/page-plane.md describes them for other languages.

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
}

// demand is a sender's packet.
type demand struct {
	Op     string `json:"op"`               // add | drop
	Size   int64  `json:"size,omitempty"`   // add: of the region, bytes
	File   string `json:"file,omitempty"`   // add: a name under /dev/shm, where no descriptor comes with the packet
	Region string `json:"region,omitempty"` // drop
}

// answer is the sidecar's packet after each demand.
type answer struct {
	Region string `json:"region,omitempty"` // add: how descriptors name it
	Code   string `json:"code,omitempty"`   // refused
	Error  string `json:"error,omitempty"`  // a sentence
}
