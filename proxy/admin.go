package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/semproxy/semproxy/proxy/verify"
)

// AdminConfig is what the admin listener shows. The zero value of each field is useful.
type AdminConfig struct {
	Checks  []Check      // what /readyz asks, in this order
	Metrics http.Handler // serves /metrics; nil: no such route
	Version any          // encoded as JSON on /version; nil: no such route
	Catalog Catalog      // serves policies and tenants of /api/v1; nil: no such routes
	Logger  *slog.Logger // nil: nothing is logged

	Verify Verified // serves verify of /api/v1; nil: no such route
	// ServesRequests says that requests are served as well, and go on without the page plane: see Check.Pages.
	ServesRequests bool

	Requests Requests        // serves requests of /api/v1; nil: no such routes
	Policies Policies        // serves trials and replacements of the policy; nil: no such routes
	Board    Board           // serves the console, and pages of /api/v1; nil: no such routes
	Studio   Studio          // serves the console's policy studio; nil: none
	Notes    func() []string // what is degraded though it is ready, in sentences; nil: nothing is
	NoPages  func() string   // why nothing is heard of pages: the process that takes them is away; nil or "": it is not
	Token    func() string   // that /api/v1 wants; nil: it answers this machine only
	Writable bool            // the policy may be replaced

	ShutdownLimit time.Duration // how long Serve waits for requests under way; 0: five seconds
	CheckLimit    time.Duration // how long all checks of one /readyz may take; 0: two seconds
}

// Verified is what sampled requests have shown. *verify.Verifier is one.
type Verified interface{ List() []verify.Counts }

// Catalog is what the admin API shows of the policy in force. The values are encoded as JSON; both methods are called
// concurrently and answer from memory.
type Catalog interface {
	Policies() any
	Tenants() any
}

// Admin is the bound admin listener.
type Admin struct {
	cfg      AdminConfig
	listener net.Listener
	server   *http.Server
}

// ListenAdmin binds addr ("host:port"; port 0: the system chooses). From then on connections wait for Serve. The
// caller calls Serve or Close.
func ListenAdmin(addr string, cfg AdminConfig) (*Admin, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ShutdownLimit <= 0 {
		cfg.ShutdownLimit = 5 * time.Second
	}
	if cfg.CheckLimit <= 0 {
		cfg.CheckLimit = 2 * time.Second
	}
	if cfg.NoPages == nil {
		cfg.NoPages = func() string { return "" }
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bind the admin listener: %w", err)
	}
	return &Admin{cfg: cfg, listener: listener, server: &http.Server{
		Handler:           adminRoutes(cfg),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}}, nil
}

// URL is the listener's base URL, with the port that was bound and no slash at its end. A listener on all interfaces
// is named by a loopback address.
func (a *Admin) URL() string { return baseURL(a.listener.Addr()) }

func baseURL(bound net.Addr) string {
	addr, ok := bound.(*net.TCPAddr)
	if !ok {
		return "http://" + bound.String()
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// Serve answers requests until ctx ends, then lets those under way finish within the shutdown limit and cuts the
// others. It returns nil after ctx ended, else why it could not serve. It is called once.
func (a *Admin) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		if errors.Is(err, http.ErrServerClosed) {
			return nil // Close
		}
		return fmt.Errorf("serve the admin listener: %w", err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.ShutdownLimit)
	defer cancel()
	if err := a.server.Shutdown(limited); err != nil {
		a.cfg.Logger.Warn("admin_requests_cut", "after", a.cfg.ShutdownLimit)
		_ = a.server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin listener: %w", err)
	}
	return nil
}

// Close lets the address go at once, cutting what is under way. It is for a listener that is not served after all.
func (a *Admin) Close() error { return errors.Join(a.server.Close(), ignoreClosed(a.listener.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
