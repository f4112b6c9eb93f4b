package config

import (
	"net/netip"
	"net/url"
	"slices"

	"github.com/semproxy/semproxy/policy/strict"
)

// proxy checks the request plane; without a listener nothing of it is used.
func (c *checker) proxy() {
	p := c.l.Proxy
	if c.l.Admin.Writable && c.l.Admin.TokenFile == "" {
		c.report("admin.writable", "must not be set without admin.tokenFile: anybody who reaches the port could change the policy")
	}
	if !c.l.RunsRequests() {
		return
	}
	c.oneOf("proxy.engine.kind", p.Engine.Kind)
	if u, err := url.Parse(p.Engine.URL); err != nil || !slices.Contains([]string{"http", "https", "h2c"}, u.Scheme) || u.Hostname() == "" ||
		u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		c.report("proxy.engine.url", "must be a base URL such as http://127.0.0.1:8000, without user, path and query") // may hold a password: not shown
	}
	if (p.TLS.CertFile == "") != (p.TLS.KeyFile == "") {
		c.report("proxy.tls.certFile", "must be set together with proxy.tls.keyFile")
	}
	if p.TLS.ClientCAFile != "" && p.TLS.CertFile == "" {
		c.report("proxy.tls.clientCaFile", "has no effect without proxy.tls.certFile")
	}
	if port, _ := c.address("proxy.listen", p.Listen); port > 0 {
		for _, other := range []struct{ path, addr string }{{"admin.listen", c.l.Admin.Listen}, {"nats.embedded.listen", c.l.NATS.Embedded.Listen}} {
			if samePort(port, other.addr) && (other.path != "nats.embedded.listen" || c.l.NATS.URL == "") {
				c.report("proxy.listen", "must have another port than %s, got %s", other.path, p.Listen)
			}
		}
	}
	c.oneOf("proxy.cors.mode", p.CORS.Mode)
	if p.CORS.Mode != "list" && len(p.CORS.Origins) > 0 {
		c.report("proxy.cors.origins", "have no effect without proxy.cors.mode list")
	}
	for i, origin := range p.CORS.Origins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "") {
			c.report(strict.Index("proxy.cors.origins", i), "must be an origin such as https://ui.example, or *, got %q", origin)
		}
	}
	for i, peer := range p.Engine.RelayPeers {
		if _, err := netip.ParsePrefix(peer); err != nil {
			c.report(strict.Index("proxy.engine.relayPeers", i), "must be a network such as 10.0.0.0/8, got %q", peer)
		}
	}
	c.identity()
	c.proxyLimits()
	c.canary()
}

func (c *checker) canary() {
	k := c.l.Proxy.Canary
	if k.Tenant != "" && c.l.Proxy.Engine.Kind != "vllm" {
		c.report("proxy.canary.tenant", "needs proxy.engine.kind vllm: no other engine is told to compress")
	}
	if !(k.MinAgreement > 0 && k.MinAgreement <= 1) {
		c.report("proxy.canary.minAgreement", "must be in (0,1], got %v", k.MinAgreement)
	}
}

func (c *checker) identity() {
	id := c.l.Proxy.Identity
	jwt := id.JWT.JWKSFile != "" || id.JWT.JWKSURL != ""
	if id.KeysFile == "" && !jwt && id.Header.Name == "" && id.AnonymousTenant == "" {
		c.report("proxy.identity", "must have a way to tell tenants apart: keysFile, jwt, header, or anonymousTenant to treat all alike")
	}
	if id.JWT.JWKSFile != "" && id.JWT.JWKSURL != "" {
		c.report("proxy.identity.jwt.jwksUrl", "must not be set together with proxy.identity.jwt.jwksFile")
	}
	if u, err := url.Parse(id.JWT.JWKSURL); id.JWT.JWKSURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		c.report("proxy.identity.jwt.jwksUrl", "must be an http or https URL, got %q", id.JWT.JWKSURL)
	}
	for _, k := range []struct{ name, value string }{{"issuer", id.JWT.Issuer}, {"audience", id.JWT.Audience}, {"claim", id.JWT.Claim}} {
		path := strict.Key("proxy.identity.jwt", k.name)
		if jwt && k.value == "" {
			c.report(path, "must be set: without it a token for somebody else would be believed")
		}
	}
	h := id.Header
	if h.Name != "" && len(h.Peers)+len(h.Subjects) == 0 {
		c.report("proxy.identity.header.name", "needs proxy.identity.header.peers or .subjects: nobody else is believed")
	}
	for i, peer := range h.Peers {
		if _, err := netip.ParsePrefix(peer); err != nil {
			c.report(strict.Index("proxy.identity.header.peers", i), "must be a network such as 10.0.0.0/8, got %q", peer)
		}
	}
	if len(h.Subjects) > 0 && c.l.Proxy.TLS.ClientCAFile == "" {
		c.report("proxy.identity.header.subjects", "have no effect without proxy.tls.clientCaFile")
	}
}

func (c *checker) proxyLimits() {
	l := c.l.Proxy.Limits
	for _, n := range []struct {
		path string
		got  int
		most int
	}{
		{"proxy.limits.connections", l.Connections, 1 << 20},
		{"proxy.limits.concurrent", l.Concurrent, 1 << 20},
		{"proxy.limits.concurrentPerTenant", l.ConcurrentPerTenant, 1 << 20},
		{"proxy.limits.queuePerTenant", l.QueuePerTenant, 1 << 20},
		{"proxy.engine.connections", c.l.Proxy.Engine.Connections, 1 << 16},
		{"proxy.recent", c.l.Proxy.Recent, 100_000},
		{"proxy.gate.minTokens", c.l.Proxy.Gate.MinTokens, 1 << 20},
	} {
		c.number(n.path, n.got, 1, n.most)
	}
	c.size("proxy.limits.maxJsonBytes", l.MaxJSONBytes, 1<<10, 1<<30)
	c.size("proxy.limits.maxBodyBytes", l.MaxBodyBytes, 1<<10, 1<<40)
	c.size("proxy.limits.maxHeaderBytes", l.MaxHeaderBytes, 1<<10, 1<<20)
	c.size("proxy.limits.bufferedBytes", l.BufferedBytes, 1<<10, 1<<40)
	if l.BufferedBytes <= l.MaxJSONBytes && c.readable("proxy.limits.maxJsonBytes") {
		c.report("proxy.limits.bufferedBytes", "must be more than proxy.limits.maxJsonBytes (%v), got %v", l.MaxJSONBytes, l.BufferedBytes)
	}
}
