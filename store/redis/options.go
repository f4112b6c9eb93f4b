package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/semproxy/semproxy/store"
)

// Options say where Redis is and how it is used. Only Addrs is required.
type Options struct {
	// Addrs are host:port of one server, of some nodes of a cluster, or of the sentinels when Master is set.
	Addrs   []string
	Cluster bool   // Addrs are nodes of a cluster; also meant by more than one address without Master
	Master  string // name of the master that the sentinels watch
	// Prefix is put before every key, so that several users can share a server. It must not contain braces.
	Prefix string
	// Credentials gives user and password for each new connection; nil: nobody logs in.
	Credentials func() (username, password string, err error)
	// TLS gives the configuration for each new connection; nil: plain TCP.
	TLS func() (*tls.Config, error)

	// TileBytes is the most that one value holds. 0: 1 MiB, which is also the most.
	TileBytes int
	// Sum is how tiles are checked. "": CRC32C.
	Sum Sum
	// Timeout is how long one operation may take, apart from the bytes it moves. 0: one second.
	Timeout time.Duration
	// PoolSize bounds the connections per server. 0: 32.
	PoolSize int
	// Parallel is how many tiles of one object are on their way at the same time. 0: half as many as there are cores, 1 to 4;
	// more were no faster where the cores are the limit.
	Parallel int
	// Staging is the life of tiles that no manifest names yet. 0: two minutes.
	Staging time.Duration
	// SweepEvery is how often the accounts are compared with what is stored. 0: one minute. Negative: never.
	SweepEvery time.Duration
	// Breaker is when a server is left alone.
	Breaker BreakerOptions
	// Refused is told each answer by which a server that is there refuses a command, and its kind ([Refusal]). It must not
	// block. nil: nobody is told.
	Refused func(kind string, err error)
	// Logger may be nil.
	Logger *slog.Logger
}

// Sum names how the tiles of an object are checked when they are read. The manifest says which one was used.
type Sum string

const (
	// CRC32C finds every change of up to three bits of a tile and all but one in 2^32 of all others. It costs little beside
	// moving the bytes.
	CRC32C Sum = "crc32c"
	// SHA256 leaves no doubt; a core needs about twice as long for it as for moving the bytes.
	SHA256 Sum = "sha256"
)

const maxTileBytes = 1 << 20

func (o Options) withDefaults() (Options, error) {
	if len(o.Addrs) == 0 {
		return o, errors.New("redis: at least one address is required")
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return o, fmt.Errorf("redis: the prefix must not contain braces, got %q", o.Prefix)
	}
	if o.Sum == "" {
		o.Sum = CRC32C
	}
	if o.Sum != SHA256 && o.Sum != CRC32C {
		return o, fmt.Errorf("redis: unknown checksum %q", o.Sum)
	}
	if o.TileBytes <= 0 || o.TileBytes > maxTileBytes {
		o.TileBytes = maxTileBytes
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.PoolSize <= 0 {
		o.PoolSize = 32
	}
	if o.Parallel <= 0 {
		o.Parallel = max(1, min(4, runtime.GOMAXPROCS(0)/2))
	}
	if o.Staging <= 0 {
		o.Staging = 2 * time.Minute
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = time.Minute
	}
	if o.Refused == nil {
		o.Refused = func(string, error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Breaker = o.Breaker.withDefaults()
	return o, nil
}

// Stats are counters since the store was opened.
type Stats struct {
	Hits     uint64 // Gets that found the object
	Misses   uint64 // Gets that did not, damaged objects included
	Damaged  uint64 // objects removed because a tile was missing or changed, or the manifest was
	Evicted  uint64 // objects removed to keep a tenant's quota
	Repaired uint64 // entries of accounts, and values, that the sweeper put right
	Failures uint64 // commands that a server did not answer
	Refused  uint64 // commands that a circuit breaker kept from a server
	Open     int    // circuit breakers that are open now
}

var _ store.Store = (*Store)(nil)
