package proxybench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/semproxy/semproxy/proxy/identity"
)

// path is a way to the engine.
type path struct {
	name string
	addr string
	pid  int // of its process; 0: none
}

// processes are those that were started, in order.
type processes struct {
	dir string
	all []process
}

type process struct {
	*os.Process
	ended chan struct{} // closed when it has
}

// freePort is one that nobody listens on. Another process may take it before it is used; the start fails then, and says so.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// start runs a program that is to listen at addr, and waits until it does.
func (p *processes) start(ctx context.Context, name, addr string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	p.all = append(p.all, process{cmd.Process, ended})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			return cmd, c.Close()
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended: %s", name, p.log(name))
		case <-timeout:
			return nil, fmt.Errorf("%s does not listen at %s: %s", name, addr, p.log(name))
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// log is the end of what a process wrote.
func (p *processes) log(name string) string {
	text, _ := os.ReadFile(filepath.Join(p.dir, name+".log"))
	return strings.TrimSpace(string(text[max(0, len(text)-1000):]))
}

// stop ends all of them, the last one first.
func (p *processes) stop() {
	for _, one := range slices.Backward(p.all) {
		_ = one.Signal(syscall.SIGTERM) // fails when it has ended
		select {
		case <-one.ended:
		case <-time.After(5 * time.Second):
			_ = one.Kill()
			<-one.ended
		}
	}
}

// open starts the engine and every proxy that there is a program for. The first path is the direct one.
func (p *processes) open(ctx context.Context, o *Options, key string) ([]path, error) {
	var paths []path
	for _, s := range []struct {
		name, program string
		args          func(o *Options, dir, key string, port int, engine string) ([]string, error)
	}{{Direct, o.Engine, engineArgs}, {Semproxy, o.Semproxy, semproxyArgs}, {"before", o.Before, semproxyArgs}, {"nginx", o.Nginx, nginxArgs}, {"caddy", o.Caddy, caddyArgs}} {
		if s.program == "" {
			continue
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		engine := ""
		if len(paths) > 0 {
			engine = paths[0].addr
		}
		args, err := s.args(o, p.dir, key, port, engine)
		if err != nil {
			return nil, err
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		cmd, err := p.start(ctx, s.name, addr, append([]string{s.program}, args...)...)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", s.name, err)
		}
		one := path{name: s.name, addr: addr}
		if s.name != Direct {
			one.pid = cmd.Process.Pid
		}
		paths = append(paths, one)
	}
	if len(paths) < 2 {
		return nil, errors.New("there is no proxy to measure")
	}
	return paths, nil
}

func engineArgs(_ *Options, _, _ string, port int, _ string) ([]string, error) {
	return []string{"proxy-engine", "--listen", "127.0.0.1:" + strconv.Itoa(port)}, nil
}

// semproxyArgs is the proxy as it is used: an API key, a policy that compresses, the cost gate, metrics and records.
func semproxyArgs(o *Options, dir, key string, port int, engine string) ([]string, error) {
	hash, err := identity.HashKey(key)
	if err != nil {
		return nil, err
	}
	keys, rules := filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "policy.yaml")
	most := strconv.Itoa(2*o.Streams + 4096)
	return []string{
			"serve", "--admin-listen", "127.0.0.1:0", "--nats-embedded-listen", "127.0.0.1:0", "--policy-path", rules, "--proxy-listen", "127.0.0.1:" + strconv.Itoa(port),
			"--proxy-engine-url", "http://" + engine, "--proxy-identity-keys-file", keys, "--proxy-limits-concurrent", most,
			"--proxy-limits-concurrent-per-tenant", most, "--proxy-limits-connections", most, "--proxy-engine-connections", "1024",
		}, errors.Join(
			os.WriteFile(keys, []byte("keys:\n  - { tenant: bench, sha256: "+hash+" }\n"), 0o600),
			os.WriteFile(rules, []byte("apiVersion: semproxy.io/v1\ntenants:\n  bench: { rules: [ { profile: balanced } ] }\n"), 0o600),
		)
}

// nginxArgs is nginx as it is put in front of engines: kept connections, no buffering, no log of requests.
func nginxArgs(o *Options, dir, _ string, port int, engine string) ([]string, error) {
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
worker_processes auto;
worker_rlimit_nofile %d;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections %d; }
http {
  access_log off;
  client_body_temp_path %[2]s/nginx-body;
  proxy_temp_path %[2]s/nginx-proxy;
  fastcgi_temp_path %[2]s/nginx-fastcgi;
  uwsgi_temp_path %[2]s/nginx-uwsgi;
  scgi_temp_path %[2]s/nginx-scgi;
  client_max_body_size 16m;
  keepalive_requests 1000000000;
  upstream engine { server %[4]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%[5]d backlog=4096;
    location / {
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }
  }
}
`, openFiles(), dir, 2*o.Streams+4096, engine, port)
	return []string{"-p", dir, "-e", "stderr", "-c", file}, os.WriteFile(file, []byte(text), 0o600)
}

// caddyArgs is Caddy's reverse proxy, which flushes streams of events at once by itself.
func caddyArgs(_ *Options, dir, _ string, port int, engine string) ([]string, error) {
	file := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	log {
		level ERROR
	}
}
http://:%d {
	bind 127.0.0.1
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns 1024
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, port, engine)
	return []string{"run", "--config", file, "--adapter", "caddyfile"}, os.WriteFile(file, []byte(text), 0o600)
}
