package shm

import (
	"errors"
	"time"
)

// Options describe a [Session]. Socket is required; a zero elsewhere takes the default.
type Options struct {
	Socket      string        // the sidecar's Unix socket
	RegionBytes int64         // of a region; default 256 MiB, at most what the sidecar takes. Memory is used as pages come
	File        bool          // a file under /dev/shm in place of a memfd
	Checksum    bool          // sum pages and replies in a memfd too, which seal and generation guard already; a file's always are
	Timeout     time.Duration // for an answer on the socket; default 5 s
}

func (o Options) withDefaults() Options {
	if o.RegionBytes <= 0 {
		o.RegionBytes = 256 << 20
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	return o
}

// ErrFull is Put's error when the region has no space for the page and its reply now.
var ErrFull = errors.New("shared memory: the region has no space now")

// ErrSocket is Exchange's error when the descriptor must go over NATS: too many are under way by the socket, its headers are too
// long for a packet, or the tenant was not proved for too long.
var ErrSocket = errors.New("shared memory: the page cannot go by the socket now")

// ErrUnsupported is every call's error on systems without the fast path.
var ErrUnsupported = errors.New("shared memory: only Linux has this path")
