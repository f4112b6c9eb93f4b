package config

import (
	"net"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

// InProcessOnly as nats.embedded.listen opens no port.
const InProcessOnly = "-"

// checker collects problems of values that could be read.
type checker struct {
	l        *Loaded
	failed   []*strict.Error // found before: their values are not looked at again
	problems []*strict.Error
}

// validate checks what one value alone, and several together, must be.
func (l *Loaded) validate(failed []*strict.Error) []*strict.Error {
	c := &checker{l: l, failed: failed}
	c.nats()
	c.listeners()
	c.sizes()
	c.models()
	c.proxy()
	c.oneOf("telemetry.logLevel", l.Telemetry.LogLevel, "debug", "info", "warn", "error")
	c.oneOf("telemetry.logFormat", l.Telemetry.LogFormat, "json", "text")
	return c.problems
}

// report adds a problem, unless the value at path, or inside it, could not be read.
func (c *checker) report(path, format string, args ...any) {
	if c.readable(path) {
		c.problems = append(c.problems, c.l.Errorf(path, format, args...))
	}
}

func (c *checker) readable(path string) bool {
	return !slices.ContainsFunc(c.failed, func(f *strict.Error) bool {
		return f.Path == path || strings.HasPrefix(f.Path, path+".") || strings.HasPrefix(f.Path, path+"[")
	})
}

func (c *checker) nats() {
	n := c.l.NATS
	for _, server := range splitServers(n.URL) {
		u, err := url.Parse(server)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			c.report("nats.url", "must be URLs such as nats://host:4222, separated by commas") // may hold a password: not shown
			break
		}
	}
	if n.CredsFile != "" && n.NKeyFile != "" {
		c.report("nats.nkeyFile", "must not be set together with nats.credsFile")
	}
	if (n.TLS.CertFile == "") != (n.TLS.KeyFile == "") {
		c.report("nats.tls.certFile", "must be set together with nats.tls.keyFile")
	}
	if n.URL != "" {
		return
	}
	for _, k := range []struct{ path, value string }{
		{"nats.credsFile", n.CredsFile},
		{"nats.nkeyFile", n.NKeyFile},
		{"nats.tls.caFile", n.TLS.CAFile},
		{"nats.tls.certFile", n.TLS.CertFile},
		{"nats.tls.keyFile", n.TLS.KeyFile},
	} {
		if k.value != "" {
			c.report(k.path, "has no effect without nats.url")
		}
	}
}

// splitServers cuts a list of URLs at its commas; nothing for the empty text.
func splitServers(list string) []string {
	if list == "" {
		return nil
	}
	servers := strings.Split(list, ",")
	for i := range servers {
		servers[i] = strings.TrimSpace(servers[i])
	}
	return servers
}

func (c *checker) listeners() {
	admin := c.l.Admin.Listen
	adminPort, _ := c.address("admin.listen", admin)
	e := c.l.NATS.Embedded
	if c.l.NATS.URL != "" || e.Listen == InProcessOnly {
		return
	}
	port, loopback := c.address("nats.embedded.listen", e.Listen)
	if port < 0 {
		return
	}
	if !loopback && e.UsersFile == "" {
		c.report("nats.embedded.listen", "must be a loopback address unless nats.embedded.usersFile is set: anybody who reaches it could speak as any tenant, got %s", e.Listen)
	}
	if port != 0 && port == adminPort {
		c.report("admin.listen", "must have another port than nats.embedded.listen, got %s", admin)
	}
}

// samePort says whether an address that may be wrong has the port.
func samePort(port int, addr string) bool {
	_, text, err := net.SplitHostPort(addr)
	return err == nil && text == strconv.Itoa(port)
}

// address checks host:port; the port is -1 when it is wrong.
func (c *checker) address(path, value string) (port int, loopback bool) {
	host, text, err := net.SplitHostPort(value)
	if err == nil {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			ip := net.ParseIP(host)
			return int(n), host == "localhost" || ip != nil && ip.IsLoopback()
		}
	}
	c.report(path, "must be host:port such as 127.0.0.1:4222, got %q", value)
	return -1, false
}

func (c *checker) sizes() {
	cfg := c.l.Config
	c.size("nats.embedded.maxPayload", cfg.NATS.Embedded.MaxPayload, 1<<10, 64<<20)
	c.size("store.memoryBytes", cfg.Store.MemoryBytes, 1<<20, 1<<50)
	c.size("store.maxBytes", cfg.Store.MaxBytes, 1<<20, 1<<50)
	c.size("compress.maxPageBytes", cfg.Compress.MaxPageBytes, 1<<10, 1<<30)
	c.number("compress.workers", cfg.Compress.Workers, 0, 1024)
	c.number("limits.workers", cfg.Limits.Workers, 0, 1024)
	c.number("limits.queue", cfg.Limits.Queue, 1, 1<<20)
	if cfg.Limits.InFlightBytes < cfg.Compress.MaxPageBytes && c.readable("compress.maxPageBytes") {
		c.report("limits.inFlightBytes", "must be at least compress.maxPageBytes (%v), got %v", cfg.Compress.MaxPageBytes, cfg.Limits.InFlightBytes)
	}
}

func (c *checker) size(path string, got, least, most policy.ByteSize) {
	if got < least || got > most {
		c.report(path, "must be %v to %v, got %v", least, most, got)
	}
}

func (c *checker) number(path string, got, least, most int) {
	if got < least || got > most {
		c.report(path, "must be %d to %d, got %d", least, most, got)
	}
}

func (c *checker) models() {
	seen := make(map[string]int)
	for i, m := range c.l.Models {
		at := strict.Index("models", i)
		path := strict.Key(at, "match")
		first, dup := seen[m.Match]
		switch {
		case m.Match == "":
			c.report(path, "must be a pattern of model names such as llama-3*")
		case dup:
			c.report(path, "must differ from models[%d].match, got %q", first, m.Match)
		default:
			seen[m.Match] = i
		}
		if m.TokenizerFile == "" && m.Layout == "" {
			c.report(at, "must have a tokenizerFile, a layout or both")
		}
	}
}

func (c *checker) oneOf(path, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		c.report(path, "must be one of %s, got %q", strings.Join(allowed, ", "), got)
	}
}

// PageWorkers is compress.workers with 0 resolved: the cores that the process may use.
func (c *Config) PageWorkers() int { return orCores(c.Compress.Workers) }

// RequestWorkers is limits.workers with 0 resolved in the same way.
func (c *Config) RequestWorkers() int { return orCores(c.Limits.Workers) }

func orCores(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}
