package config

import (
	"net"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

// InProcessOnly as nats.embedded.listen opens no port.
const InProcessOnly = "-"

// maxSocketPath is what the system's address of a Unix socket holds.
const maxSocketPath = 107

// checker collects problems of values that could be read.
type checker struct {
	l        *Loaded
	failed   []*strict.Error // found before: their values are not looked at again
	problems []*strict.Error
}

// validate checks what one value alone, and several together, must be.
func (l *Loaded) validate(failed []*strict.Error) []*strict.Error {
	c := &checker{l: l, failed: failed}
	c.planes()
	c.nats()
	c.jobs()
	c.listeners()
	c.sizes()
	c.redis()
	c.models()
	c.device()
	c.proxy()
	c.oneOf("telemetry.logLevel", l.Telemetry.LogLevel)
	c.oneOf("telemetry.logFormat", l.Telemetry.LogFormat)
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

func (c *checker) jobs() {
	j := c.l.Jobs
	switch {
	case j.Dir != "" && c.l.NATS.URL != "":
		c.report("jobs.dir", "has no effect with nats.url: the jobs are in that system's JetStream")
	case j.Enabled && j.Dir == "" && c.l.NATS.URL == "":
		c.report("jobs.dir", "must be a folder: the server of this process keeps jobs in files")
	}
	if j.Replicas > 1 && c.l.NATS.URL == "" {
		c.report("jobs.replicas", "must be 1 without nats.url: the server of this process is alone, got %d", j.Replicas)
	}
	c.number("jobs.replicas", j.Replicas, 1, 5)
	c.size("jobs.maxBytes", j.MaxBytes, 1<<20, 1<<50)
	if time.Duration(j.AckWait) < 100*time.Millisecond {
		c.report("jobs.ackWait", "must be at least 100ms, got %v", j.AckWait)
	}
	if c.l.NATS.PrivateInboxes && c.l.NATS.URL == "" {
		c.report("nats.privateInboxes", "has no effect without nats.url: nats.embedded.usersFile does the same")
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
	c.size("sharedMemory.maxRegionBytes", cfg.SharedMemory.MaxRegionBytes, 1<<12, 1<<40)
	if len(cfg.SharedMemory.Socket) > maxSocketPath {
		c.report("sharedMemory.socket", "must have at most %d bytes, got %d", maxSocketPath, len(cfg.SharedMemory.Socket))
	}
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

func (c *checker) redis() {
	s := c.l.Store
	r := s.Redis
	if r.Timeout < policy.Duration(10e6) || r.Timeout > policy.Duration(60e9) {
		c.report("store.redis.timeout", "must be 10ms to 1m, got %v", r.Timeout)
	}
	if strings.ContainsAny(r.Prefix, "{}") {
		c.report("store.redis.prefix", "must not contain braces, got %q", r.Prefix)
	}
	if (r.TLS.CertFile == "") != (r.TLS.KeyFile == "") {
		c.report("store.redis.tls.certFile", "must be set together with store.redis.tls.keyFile")
	}
	for _, k := range []struct{ path, value string }{
		{"store.redis.tls.caFile", r.TLS.CAFile}, {"store.redis.tls.certFile", r.TLS.CertFile}, {"store.redis.tls.serverName", r.TLS.ServerName},
	} {
		if k.value != "" && !r.TLS.Enabled {
			c.report(k.path, "has no effect without store.redis.tls.enabled")
		}
	}
	if r.UsernameFile != "" && r.PasswordFile == "" {
		c.report("store.redis.usernameFile", "must be set together with store.redis.passwordFile")
	}
	if r.Addrs == "" {
		for _, k := range []struct {
			path string
			set  bool
		}{
			{"store.redis.cluster", r.Cluster}, {"store.redis.master", r.Master != ""}, {"store.redis.prefix", r.Prefix != ""},
			{"store.redis.passwordFile", r.PasswordFile != ""}, {"store.redis.tls.enabled", r.TLS.Enabled},
		} {
			if k.set {
				c.report(k.path, "has no effect without store.redis.addrs")
			}
		}
		return
	}
	for _, addr := range r.Servers() {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || !isPort(port) {
			c.report("store.redis.addrs", "must be host:port such as redis:6379, separated by commas, got %q", withoutLogin(r.Addrs))
			break
		}
	}
	if s.Dir != "" {
		c.report("store.dir", "must not be set together with store.redis.addrs: objects are kept there, and in memory")
	}
	if r.Cluster && r.Master != "" {
		c.report("store.redis.master", "must not be set together with store.redis.cluster")
	}
}

// withoutLogin leaves out what stands before an @: somebody has given a URL with a password where none belongs.
func withoutLogin(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return "...@" + text[at+1:]
	}
	return text
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// Servers are the addresses one by one.
func (r Redis) Servers() []string { return splitServers(r.Addrs) }

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

func (c *checker) device() {
	name := c.l.Compress.Device
	if _, ok := c.l.Compress.CUDA(); !ok && name != DeviceAuto && name != DeviceCPU {
		c.report("compress.device", "must be auto, cpu or cuda:N, got %q", name)
	}
	c.size("compress.gpu.memoryBytes", c.l.Compress.GPU.MemoryBytes, 32<<20, 1<<40)
}

// choices are the values of keys that have a few words to choose from; the chart's schema has them too.
var choices = map[string][]string{
	"planes":              {PlanesBoth, PlanesRequests, PlanesPages},
	"proxy.engine.kind":   {"vllm", "tgi", "openai"},
	"proxy.cors.mode":     {"pass", "off", "list"},
	"telemetry.logFormat": {"json", "text"},
	"telemetry.logLevel":  {"debug", "info", "warn", "error"},
}

func (c *checker) oneOf(path, got string) {
	if allowed := choices[path]; !slices.Contains(allowed, got) {
		c.report(path, "must be one of %s, got %q", strings.Join(allowed, ", "), got)
	}
}

// Values of compress.device that name no GPU.
const (
	DeviceAuto = "auto"
	DeviceCPU  = "cpu"
)

// CUDA is the index of the GPU that compress.device names; false when it names none.
func (c *Compress) CUDA() (int, bool) {
	text, ok := strings.CutPrefix(c.Device, "cuda:")
	n, err := strconv.ParseUint(text, 10, 8)
	return int(n), ok && err == nil
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
