package sidecar

import (
	"context"
	"log/slog"
	"time"

	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport"
)

// ConnectOptions are those of the configured NATS system. The logger may be nil.
func ConnectOptions(c *config.NATS, log *slog.Logger) transport.ConnectOptions {
	return transport.ConnectOptions{
		Name: "semproxy", CredsFile: c.CredsFile, NKeyFile: c.NKeyFile,
		CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, Logger: log,
	}
}

// credentialCheck is how often the files of the connection to NATS are looked at.
const credentialCheck = 2 * time.Second

// watchCredentials takes up changed credentials and certificates until ctx ends. Those that do not let this process in
// are reported, and the connection stays as it is.
func (s *Sidecar) watchCredentials(ctx context.Context) error {
	opts := ConnectOptions(&s.cfg.NATS, s.log)
	if len(opts.Files()) == 0 {
		<-ctx.Done()
		return nil
	}
	opts.Watch(ctx, credentialCheck, func(ctx context.Context) {
		once := opts
		once.Name, once.Once = "semproxy (new credentials)", true
		probe, err := transport.Connect(s.cfg.NATS.URL, once)
		if err != nil {
			s.log.Error("nats_credentials_rejected", "error", err, "effect", "the connection stays as it is")
			return
		}
		probe.Close()
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.plane.Reconnect(limited); err != nil {
			s.log.Error("nats_reconnect_failed", "error", err)
			return
		}
		s.log.Info("nats_credentials_applied")
	})
	return nil
}
