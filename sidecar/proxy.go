package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/semproxy/semproxy/proxy/canary"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/reload"
	"github.com/semproxy/semproxy/proxy/spans"
	"github.com/semproxy/semproxy/proxy/verify"
	"github.com/semproxy/semproxy/sidecar/config"
)

// requestPlane is the proxy in front of the engine, and what it shares with the page plane and the admin API.
type requestPlane struct {
	gate      *gate.Gate
	admission *limit.Admission
	server    *forward.Server
	verifier  *verify.Verifier              // nil: the engine's kind is told nothing of compression
	actors    []func(context.Context) error // that run beside it
	slack     []byte                        // see newSlack
	held      func() string                 // why the canary holds compression back; nil: there is none
}

// prepareProxy comes before the page plane, whose pages are remembered with the requests that they belong to.
func (s *Sidecar) prepareProxy(context.Context, Options) error {
	c := &s.cfg.Proxy
	s.ring = recent.New(c.Recent)
	if !s.cfg.RunsRequests() {
		return nil
	}
	s.requests = &requestPlane{
		slack: newSlack(),
		gate:  gate.New(gate.Options{Off: !c.Gate.Enabled, MinTokens: c.Gate.MinTokens}),
		admission: limit.New(limit.Options{
			Concurrent: c.Limits.Concurrent, ConcurrentPerTenant: c.Limits.ConcurrentPerTenant,
			QueuePerTenant: c.Limits.QueuePerTenant, QueueTimeout: time.Duration(c.Limits.QueueTimeout),
		}),
	}
	return nil
}

// startProxy binds the proxy's listener; run serves it.
func (s *Sidecar) startProxy(context.Context, Options) error {
	if s.requests == nil {
		return nil
	}
	c := &s.cfg.Proxy
	who, err := s.identity(&c.Identity)
	if err != nil {
		return fmt.Errorf("proxy.identity: %w", err)
	}
	engine, err := url.Parse(c.Engine.URL)
	if err != nil {
		return errors.New("proxy.engine.url: is not a URL")
	}
	key, err := s.secret(c.Engine.APIKeyFile)
	if err != nil {
		return fmt.Errorf("proxy.engine.apiKeyFile: %w", err)
	}
	cfg := forward.Config{
		Engine: engine, Kind: c.Engine.Kind, EngineKey: key, Identity: who, Policy: s.rules,
		Admission: s.requests.admission, Gate: s.requests.gate, Recent: s.ring, NoPages: s.noPages, Apart: !s.cfg.RunsPages(),
		MaxJSON: int64(c.Limits.MaxJSONBytes), MaxBody: int64(c.Limits.MaxBodyBytes), Buffered: int64(c.Limits.BufferedBytes),
		ClientTimeout: time.Duration(c.Limits.ClientTimeout), HeaderTimeout: time.Duration(c.Engine.HeaderTimeout),
		IdleTimeout: time.Duration(c.Engine.IdleTimeout), IdleConns: c.Engine.Connections, HideDecision: !c.Headers,
		BufferedEach: int64(min(c.Limits.BufferedBytes, max(c.Limits.BufferedBytes/4, 2*c.Limits.MaxJSONBytes))), KeepAlive: time.Duration(c.Engine.KeepAlive),
		CORS: forward.CORS{Mode: c.CORS.Mode, Origins: c.CORS.Origins}, RelayPeers: prefixes(c.Engine.RelayPeers),
		Tracer: s.tel.TracerProvider, Meter: s.tel.MeterProvider, Propagator: s.tel.Propagator, Logger: s.log,
	}
	if c.Engine.Kind == forward.VLLM && c.Gate.Enabled {
		usage := forward.NewKVUsage(engine, key, kvInterval, s.log)
		cfg.KVUsage = usage.Value
		s.requests.actors = append(s.requests.actors, usage.Run)
	}
	if c.Engine.Kind == forward.VLLM {
		finder := spans.New(engine, spans.Options{Key: key, Transport: forward.NewTransport(engine, 16), Timeout: time.Duration(c.Engine.TokenizeTimeout)})
		s.onStop(func(context.Context) error { finder.Close(); return nil })
		cfg.Spans = finder
	}
	if c.Canary.Tenant != "" {
		if cfg.Off, err = s.startCanary(engine, key); err != nil {
			return err
		}
	}
	if c.Engine.Kind == forward.VLLM {
		if s.requests.verifier, err = s.verifier(engine, key, cfg.KVUsage); err != nil {
			return err
		}
		cfg.Verify = s.requests.verifier
	}
	s.shareBudgets()
	p, err := forward.New(cfg)
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { p.Close(); return nil })
	secure, err := ProxyTLS(&c.TLS)
	if err != nil {
		return fmt.Errorf("proxy.tls: %w", err)
	}
	s.requests.server, err = forward.Listen(c.Listen, p, forward.ServerConfig{
		TLS: secure, Connections: c.Limits.Connections, HeaderBytes: int(c.Limits.MaxHeaderBytes), HeaderTimeout: time.Duration(c.Limits.ClientTimeout), Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return s.requests.server.Close() })
	if c.Identity.AnonymousTenant != "" {
		s.log.Warn("proxy_anonymous", "tenant", c.Identity.AnonymousTenant, "effect", "requests without a credential are served")
	}
	return nil
}

// kvInterval is how often the engine's /metrics is read for the use of its KV memory.
const kvInterval = 2 * time.Second

// canaryTokens is the length of the canary's answers; canaryLogprob is how far apart the log probabilities of their like beginning may
// be, on average.
const (
	canaryTokens  = 32
	canaryLogprob = 0.5
)

// maxVerifyUse is the share of the engine's KV memory from which on nothing is verified.
const maxVerifyUse = 0.7

// verifier prepares what runProxy runs.
func (s *Sidecar) verifier(engine *url.URL, key func() string, use func() float64) (*verify.Verifier, error) {
	transport := forward.NewTransport(engine, 1)
	v, err := verify.New(engine, verify.Options{
		Transport: transport, Key: key, Every: time.Duration(s.cfg.Proxy.Verify.Every), Timeout: time.Duration(s.cfg.Proxy.Verify.Timeout),
		Room: func() bool { return use == nil || use() < maxVerifyUse }, Meter: s.tel.MeterProvider, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	s.onStop(func(context.Context) error { transport.CloseIdleConnections(); return nil })
	s.requests.actors = append(s.requests.actors, v.Run)
	return v, nil
}

// startCanary prepares what runProxy runs, and returns what says why nothing is to be compressed.
func (s *Sidecar) startCanary(engine *url.URL, key func() string) (off func() string, err error) {
	c := &s.cfg.Proxy.Canary
	k, err := canary.New(engine, canary.Options{
		Plane: &forward.CanaryPlane{Tenant: c.Tenant, Policy: s.rules, Recent: s.ring},
		Key:   key, Transport: forward.NewTransport(engine, 1), Model: c.Model, Tokens: canaryTokens,
		Limit: canary.Limit{Agreement: c.MinAgreement, Logprob: canaryLogprob},
		Every: time.Duration(c.Interval), Timeout: time.Duration(c.Timeout), Meter: s.tel.MeterProvider, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	s.requests.actors = append(s.requests.actors, k.Run)
	s.requests.held = k.Off
	return k.Off, nil
}

// runProxy starts what startProxy has bound.
func (s *Sidecar) runProxy(start func(func(context.Context) error)) {
	if s.requests == nil {
		return
	}
	for _, actor := range s.requests.actors {
		start(actor)
	}
	start(func(context.Context) error { return s.requests.server.Serve() })
	s.log.Info("proxying", "url", s.requests.server.URL(), "engine", s.cfg.Proxy.Engine.URL, "kind", s.cfg.Proxy.Engine.Kind)
}

// drainProxy lets requests under way finish, within three quarters of the time that ctx has left: they may still send
// pages, and those want to be answered too. Longer streams are cut, as they would be at the end of the time anyway.
func (s *Sidecar) drainProxy(ctx context.Context) {
	if s.requests == nil {
		return
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
		defer cancel()
	}
	if err := s.requests.server.Drain(ctx); err != nil {
		s.log.Warn("proxy_requests_cut", "error", err.Error())
	}
}

func (s *Sidecar) identity(c *config.ProxyIdentity) (*identity.Resolver, error) {
	cfg := identity.Config{Anonymous: c.AnonymousTenant, Logger: s.log}
	var err error
	if c.KeysFile != "" {
		if cfg.Keys, err = identity.OpenKeys(c.KeysFile, s.log, nil); err != nil {
			return nil, err
		}
	}
	tokens := identity.Tokens{Issuer: c.JWT.Issuer, Audience: c.JWT.Audience, Claim: c.JWT.Claim}
	switch {
	case c.JWT.JWKSFile != "":
		if tokens.Source, err = identity.OpenKeySet(c.JWT.JWKSFile, s.log, nil); err != nil {
			return nil, err
		}
		cfg.Tokens = &tokens
	case c.JWT.JWKSURL != "":
		source := identity.NewKeySetURL(c.JWT.JWKSURL, s.log, 0)
		s.requests.actors = append(s.requests.actors, source.Run)
		tokens.Source, cfg.Tokens = source, &tokens
	}
	if c.Header.Name != "" {
		if cfg.Header, err = identity.NewHeader(c.Header.Name, c.Header.Peers, c.Header.Subjects); err != nil {
			return nil, err
		}
	}
	return identity.New(cfg)
}

// prefixes are networks, which the configuration's check has found to be such.
func prefixes(texts []string) (out []netip.Prefix) {
	for _, text := range texts {
		if one, err := netip.ParsePrefix(text); err == nil {
			out = append(out, one)
		}
	}
	return out
}

// secret follows a file that holds one; nil for no file.
func (s *Sidecar) secret(path string) (func() string, error) {
	if path == "" {
		return nil, nil
	}
	file, err := reload.Open(path, func(path string, data []byte) (string, error) {
		text := strings.TrimSpace(string(data))
		if text == "" || strings.ContainsAny(text, " \t\r\n") {
			return "", fmt.Errorf("%s: must hold one word", path)
		}
		return text, nil
	}, s.log, nil)
	if err != nil {
		return nil, err
	}
	return file.Get, nil
}

// ProxyTLS is what the request plane listens with: nil without a certificate, which is read again when its file changes.
func ProxyTLS(c *config.ProxyTLS) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.ClientCAFile != "" {
		text, err := os.ReadFile(c.ClientCAFile)
		if err != nil {
			return nil, err
		}
		out.ClientCAs, out.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !out.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: has no certificate", c.ClientCAFile)
		}
	}
	return out, nil
}

// headers finds those of a page's request, for rules that look at them; nil without a request plane.
func (s *Sidecar) headers() func(tenant, sequence string) map[string]string {
	if s.requests == nil {
		return nil
	}
	return s.ring.Headers
}

// messages finds those of a page's request that its policy protects; nil without a request plane.
func (s *Sidecar) messages() func(tenant, sequence string) ([][2]int, bool) {
	if s.requests == nil {
		return nil
	}
	return func(tenant, sequence string) (out [][2]int, known bool) {
		found, known := s.ring.Protected(tenant, sequence)
		for _, one := range found {
			out = append(out, one)
		}
		return out, known
	}
}
