package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// ServerConfig is how the proxy listens. The zero value of each field is useful.
type ServerConfig struct {
	TLS           *tls.Config   // nil: plain, with HTTP/1.1 and HTTP/2 by prior knowledge (h2c)
	Connections   int           // at one time; for one more, one that serves nothing is closed; 0: 16384
	HeaderBytes   int           // of one request; 0: 16 KiB
	HeaderTimeout time.Duration // for a request's headers; 0: 10 s
	IdleTimeout   time.Duration // of a connection between two requests; 0: 2 min
	Logger        *slog.Logger
}

// Server is a bound listener of a proxy.
type Server struct {
	listener net.Listener
	addr     net.Addr
	server   *http.Server
	tls      bool
}

// spareConnections are accepted beyond the bound while others are being closed; where all serve requests, more wait.
const spareConnections = 64

// Listen binds addr ("host:port"; port 0: the system chooses). The caller calls Serve, then Drain or Close.
func Listen(addr string, p *Proxy, cfg ServerConfig) (*Server, error) {
	orElse(&cfg.Connections, 16384)
	orElse(&cfg.HeaderBytes, 16<<10)
	orElse(&cfg.HeaderTimeout, 10*time.Second)
	orElse(&cfg.IdleTimeout, 2*time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bind the proxy's listener: %w", err)
	}
	s := &Server{listener: netutil.LimitListener(listener, cfg.Connections+spareConnections), addr: listener.Addr(), tls: cfg.TLS != nil}
	open := newConnections(cfg.Connections)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(!s.tls)
	s.server = &http.Server{
		Handler: p, ConnContext: open.context, ConnState: open.state, TLSConfig: cfg.TLS, Protocols: protocols,
		ReadHeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout, MaxHeaderBytes: cfg.HeaderBytes,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: cfg.IdleTimeout, WriteByteTimeout: p.cfg.ClientTimeout},
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// URL is the listener's base URL, with the port that was bound and no slash at its end.
func (s *Server) URL() string {
	scheme := "http://"
	if s.tls {
		scheme = "https://"
	}
	host, port, err := net.SplitHostPort(s.addr.String())
	if err != nil {
		return scheme + s.addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + net.JoinHostPort(host, port)
}

// Serve answers requests until Drain or Close, and returns nil then. It is called once.
func (s *Server) Serve() error {
	var err error
	if s.tls {
		err = s.server.ServeTLS(s.listener, "", "")
	} else {
		err = s.server.Serve(s.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the proxy's listener: %w", err)
}

// Drain takes no new connection, lets the requests under way finish until ctx ends, and cuts the others, which is the
// error then.
func (s *Server) Drain(ctx context.Context) error {
	if err := s.server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain the proxy: requests were cut: %w", err), s.server.Close())
	}
	return nil
}

// Close lets the address go at once, cutting what is under way.
func (s *Server) Close() error {
	if err := errors.Join(s.server.Close(), s.listener.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
