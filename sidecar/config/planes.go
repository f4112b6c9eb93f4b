package config

// Values of planes: what a process runs.
const (
	PlanesBoth     = "both"
	PlanesRequests = "requests"
	PlanesPages    = "pages"
)

// RunsPages says whether this process takes pages.
func (c *Config) RunsPages() bool { return c.Planes != PlanesRequests }

// RunsRequests says whether this process takes requests: where there is a proxy.
func (c *Config) RunsRequests() bool { return c.Planes != PlanesPages && c.Proxy.Listen != "" }

// planes checks what this process runs. One file serves the processes of both planes, so that keys of the other plane are none's mistake.
func (c *checker) planes() {
	l := c.l
	c.oneOf("planes", l.Planes)
	if len(l.PlanesSocket) > maxSocketPath {
		c.report("planesSocket", "must have at most %d bytes, got %d", maxSocketPath, len(l.PlanesSocket))
	}
	if l.Planes != PlanesRequests && l.Planes != PlanesPages {
		return
	}
	if l.PlanesSocket == "" {
		c.report("planesSocket", "must be the path of a socket with planes %s: the same for the process of the other plane", l.Planes)
	}
	if l.PlanesSocket != "" && l.PlanesSocket == l.SharedMemory.Socket {
		c.report("planesSocket", "must differ from sharedMemory.socket, got %s", l.PlanesSocket)
	}
	if l.Planes == PlanesRequests && l.Proxy.Listen == "" {
		c.report("planes", "must not be requests without proxy.listen: this process would serve nothing")
	}
	if l.Admin.Writable {
		c.report("admin.writable", "must not be set with planes %s: the other plane's process would keep its policy; change the files of policy.path", l.Planes)
	}
}
