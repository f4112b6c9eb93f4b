package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// storeLayers are the parts of the store that have counters; nil: not there.
type storeLayers struct {
	files  *store.Files
	redis  *redis.Store
	sealed *store.Sealed
	memory *store.Layered
}

// marksBytes bounds what a store of this process keeps to find objects by their prefix.
const marksBytes = 16 << 20

// startStore opens the store: Redis, or files and memory of this process; encryption over it where there are keys;
// memory in front of Redis.
func (s *Sidecar) startStore(context.Context, Options) error {
	var l storeLayers
	err := s.openStore(&l)
	if s.store != nil {
		s.onStop(func(context.Context) error { return s.store.Close() })
	}
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if s.redis = l.redis; l.redis != nil {
		s.prefixes, s.claims = l.redis, l.redis
	} else if s.prefixes, err = store.NewMarks(s.store, marksBytes); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	return observeStore(s.tel.MeterProvider, l)
}

func (s *Sidecar) openStore(l *storeLayers) (err error) {
	c := &s.cfg.Store
	var keys *store.Keyring
	if c.Encryption.KeysDir != "" {
		if keys, err = store.OpenKeyring(c.Encryption.KeysDir, s.log); err != nil {
			return err
		}
	}
	switch opt := (store.FilesOptions{MemoryBytes: int64(c.MemoryBytes), MaxBytes: int64(c.MaxBytes)}); {
	case c.Redis.Addrs != "":
		opt := RedisOptions(&c.Redis, s.log)
		opt.Refused = s.neighbours.refuses("redis")
		if err = readable(opt); err == nil {
			l.redis, err = redis.Open(opt)
		}
		s.store = l.redis
	case c.Dir != "":
		l.files, err = store.OpenFiles(c.Dir, opt)
		s.store = l.files
	default:
		opt.MaxBytes = int64(c.MemoryBytes)
		l.files, err = store.OpenMemory(opt)
		s.store = l.files
	}
	if err != nil {
		s.store = nil
		return err
	}
	if keys != nil {
		l.sealed = store.NewSealed(s.store, keys)
		s.store = l.sealed
	}
	if l.redis != nil {
		l.memory, err = store.NewLayered(s.store, store.LayeredOptions{MemoryBytes: int64(c.MemoryBytes), Optional: !c.Redis.Required})
		if err == nil {
			s.store = l.memory
		}
	}
	return err
}

// RedisOptions are those of the configured Redis.
func RedisOptions(c *config.Redis, log *slog.Logger) redis.Options {
	opt := redis.Options{
		Addrs: c.Servers(), Cluster: c.Cluster, Master: c.Master, Prefix: c.Prefix,
		Timeout: time.Duration(c.Timeout), Logger: log,
	}
	if c.PasswordFile != "" {
		opt.Credentials = func() (username, password string, err error) {
			if c.UsernameFile != "" {
				if username, err = config.ReadSecret(c.UsernameFile); err != nil {
					return "", "", err
				}
			}
			password, err = config.ReadSecret(c.PasswordFile)
			return username, password, err
		}
	}
	if c.TLS.Enabled {
		opt.TLS = func() (*tls.Config, error) { return redisTLS(&c.TLS) }
	}
	return opt
}

// readable reads the files of secrets once, so that one that is missing stops the start.
func readable(opt redis.Options) error {
	if opt.Credentials != nil {
		if _, _, err := opt.Credentials(); err != nil {
			return err
		}
	}
	if opt.TLS != nil {
		if _, err := opt.TLS(); err != nil {
			return err
		}
	}
	return nil
}

func redisTLS(c *config.RedisTLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

var errStoreAway = errors.New("redis does not answer")

// stored is the readiness of a store that the configuration requires.
func (s *Sidecar) stored(ctx context.Context) error {
	if s.redis == nil || !s.cfg.Store.Redis.Required {
		return nil
	}
	if err := s.redis.Trial(ctx); err != nil {
		if s.redis.Ping(ctx) == nil {
			return fmt.Errorf("%w: %w", errNotWritable, err)
		}
		return fmt.Errorf("%w: %w", errStoreAway, err)
	}
	return nil
}

// storeView is the store as readiness shows it.
type storeView struct {
	Kind     string `json:"kind"` // redis, files, memory
	Required bool   `json:"required"`
	Open     int    `json:"breakersOpen"` // servers that are left alone
}

func (s *Sidecar) storeStatus() any {
	switch {
	case s.redis != nil:
		return storeView{Kind: "redis", Required: s.cfg.Store.Redis.Required, Open: s.redis.Stats().Open}
	case s.cfg.Store.Dir != "":
		return storeView{Kind: "files", Required: true}
	}
	return storeView{Kind: "memory", Required: true}
}

// observeStore shows the store's counters as metrics.
func observeStore(mp metric.MeterProvider, l storeLayers) error {
	meter := mp.Meter(scope)
	events, err := meter.Int64ObservableCounter(semconv.MetricStoreEvents)
	if err != nil {
		return err
	}
	open, err := meter.Int64ObservableGauge(semconv.MetricStoreBreakers)
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for event, n := range l.events() {
			o.ObserveInt64(events, int64(n), metric.WithAttributes(semconv.StoreEvent.String(event)))
		}
		if l.redis != nil {
			o.ObserveInt64(open, int64(l.redis.Stats().Open))
		}
		return nil
	}, events, open)
	return err
}

// events are the counters of all layers.
func (l *storeLayers) events() map[string]uint64 {
	e := map[string]uint64{}
	if l.files != nil {
		f := l.files.Stats()
		e[semconv.StoreHit], e[semconv.StoreMemoryHit], e[semconv.StoreMiss] = f.Hits, f.MemoryHits, f.Misses
		e[semconv.StoreDamaged], e[semconv.StoreExpired], e[semconv.StoreEvicted] = f.Damaged, f.Expired, f.Evicted
	}
	if l.redis != nil {
		r := l.redis.Stats()
		e[semconv.StoreHit], e[semconv.StoreMiss], e[semconv.StoreDamaged] = r.Hits, r.Misses, r.Damaged
		e[semconv.StoreEvicted], e[semconv.StoreRepaired] = r.Evicted, r.Repaired
		e[semconv.StoreFailure], e[semconv.StoreCut] = r.Failures, r.Refused
	}
	if l.memory != nil {
		m := l.memory.Stats()
		e[semconv.StoreHit] += m.MemoryHits
		e[semconv.StoreMemoryHit], e[semconv.StoreAwayHit], e[semconv.StoreKept] = m.MemoryHits, m.AwayHits, m.Kept
	}
	if l.sealed != nil {
		x := l.sealed.Stats()
		e[semconv.StoreSealed], e[semconv.StoreKeyMissing], e[semconv.StoreNotOpened] = x.Sealed, x.Missing, x.Refused
	}
	return e
}

var _ pipeline.Store = store.Store(nil)
