package scalebench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	goredis "github.com/redis/go-redis/v9"
)

// startLimit is how long a process may take to be ready on a busy machine.
const startLimit = 30 * time.Second

// place is where a server runs: an address of its own, and how its program is started there.
type place interface {
	// host is the address that the servers of this place listen at.
	host() string
	// command starts the program there. ready must be called once it has been started.
	command(program string, args ...string) (cmd *exec.Cmd, ready func() error, err error)
	// received are the bytes that came in from others so far; known is false where nobody counts them.
	received(pid int) (bytes int64, known bool)
}

// loopback is the machine itself.
type loopback struct{}

func (loopback) host() string { return "127.0.0.1" }

func (loopback) command(program string, args ...string) (*exec.Cmd, func() error, error) {
	return exec.Command(program, args...), func() error { return nil }, nil
}

func (loopback) received(int) (int64, bool) { return 0, false }

// process is a program that runs.
type process struct {
	name  string
	place place
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// processes are all that a run has started.
type processes struct {
	dir string
	all []*process
}

// start starts a program that will listen at addr, and waits until it does.
func (p *processes) start(ctx context.Context, at place, name, addr string, env []string, program string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd, ready, err := at.command(program, args...)
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = p.dir, log, log, append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	one := &process{name, at, cmd, log.Name(), make(chan struct{})}
	p.all = append(p.all, one)
	go func() {
		defer close(one.ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	if err := ready(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return one, one.wait(ctx, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		return err == nil && c.Close() == nil
	})
}

// wait waits until yes says so.
func (o *process) wait(ctx context.Context, yes func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for !yes() {
		select {
		case <-o.ended:
			text, _ := os.ReadFile(o.log)
			return fmt.Errorf("%s ended: %s", o.name, strings.TrimSpace(string(text[max(0, len(text)-1000):])))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", o.name, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// stop ends all of them, the last one first.
func (p *processes) stop() {
	for _, one := range slices.Backward(p.all) {
		_ = one.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
		select {
		case <-one.ended:
		case <-time.After(5 * time.Second):
			_ = one.cmd.Process.Kill()
			<-one.ended
		}
	}
	p.all = nil
}

// ports are so many ports of the loopback that nobody has.
func ports(n int) ([]string, error) {
	var all []string
	var open []net.Listener
	defer func() { // after all are chosen, so that no two are the same
		for _, l := range open {
			_ = l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		all = append(all, port)
	}
	return all, nil
}

// startNATS starts a cluster of a NATS server at each place, and returns where clients and leaf nodes connect.
func (p *processes) startNATS(ctx context.Context, program string, places []place) (urls, leaves []string, servers []*process, err error) {
	chosen, err := ports(3 * len(places))
	if err != nil {
		return nil, nil, nil, err
	}
	var routes []string
	for i, at := range places {
		routes = append(routes, "nats://"+net.JoinHostPort(at.host(), chosen[3*i+1]))
		leaves = append(leaves, "nats-leaf://"+net.JoinHostPort(at.host(), chosen[3*i+2]))
	}
	for i, at := range places {
		addr := net.JoinHostPort(at.host(), chosen[3*i])
		one, err := p.start(ctx, at, fmt.Sprint("nats-", i), addr, nil, program, "scale-nats", "--host", at.host(), "--port", chosen[3*i],
			"--cluster-port", chosen[3*i+1], "--leaf-port", chosen[3*i+2], "--routes", strings.Join(routes, ","), "--name", fmt.Sprint("scale-", i))
		if err != nil {
			return nil, nil, nil, err
		}
		urls, servers = append(urls, "nats://"+addr), append(servers, one)
	}
	return urls, leaves, servers, nil
}

// startLeaves starts a NATS server at each place that joins the others at hub as a leaf node.
func (p *processes) startLeaves(ctx context.Context, program string, places []place, hub []string) (urls []string, servers []*process, err error) {
	chosen, err := ports(len(places))
	if err != nil {
		return nil, nil, err
	}
	for i, at := range places {
		addr := net.JoinHostPort(at.host(), chosen[i])
		one, err := p.start(ctx, at, fmt.Sprint("leaf-", i), addr, nil, program, "scale-nats", "--host", at.host(), "--port", chosen[i],
			"--remotes", strings.Join(hub, ","), "--name", fmt.Sprint("scale-leaf-", i))
		if err != nil {
			return nil, nil, err
		}
		urls, servers = append(urls, "nats://"+addr), append(servers, one)
	}
	return urls, servers, nil
}

// NATSOptions are those of one NATS server: of the cluster, or of a node.
type NATSOptions struct {
	Name, Host  string
	Port        int
	ClusterPort int
	LeafPort    int      // where leaf nodes connect
	Routes      []string // of all servers of the cluster, itself included
	Remotes     []string // servers that this one joins as a leaf node
}

// ServeNATS runs one NATS server until ctx ends. It is a process of its own, so that its processor time can be told.
func ServeNATS(ctx context.Context, o NATSOptions) error {
	so := &server.Options{ServerName: o.Name, Host: o.Host, Port: o.Port, MaxPayload: 8 << 20, NoSigs: true, NoLog: true, MaxPending: 256 << 20}
	parse := func(all []string) (urls []*url.URL, err error) {
		for _, one := range all {
			u, err := url.Parse(one)
			if err != nil {
				return nil, err
			}
			urls = append(urls, u)
		}
		return urls, nil
	}
	var err error
	if len(o.Remotes) > 0 {
		hub := &server.RemoteLeafOpts{}
		hub.URLs, err = parse(o.Remotes)
		so.LeafNode.Remotes = []*server.RemoteLeafOpts{hub}
	} else {
		so.Cluster = server.ClusterOpts{Name: "scale", Host: o.Host, Port: o.ClusterPort}
		so.LeafNode.Host, so.LeafNode.Port = o.Host, o.LeafPort
		so.Routes, err = parse(o.Routes)
	}
	if err != nil {
		return err
	}
	s, err := server.NewServer(so)
	if err != nil {
		return err
	}
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// startRedis starts a cluster of a master at each place, without replicas.
func (p *processes) startRedis(ctx context.Context, places []place) (addrs []string, servers []*process, err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, nil, fmt.Errorf("redis-server is needed: %w", err)
	}
	chosen, err := ports(2 * len(places))
	if err != nil {
		return nil, nil, err
	}
	for i, at := range places {
		addr := net.JoinHostPort(at.host(), chosen[2*i])
		one, err := p.start(ctx, at, fmt.Sprint("redis-", i), addr, nil, program, "--bind", at.host(), "--port", chosen[2*i],
			"--cluster-enabled", "yes", "--cluster-port", chosen[2*i+1], "--cluster-announce-ip", at.host(),
			"--cluster-config-file", fmt.Sprint("nodes-", i, ".conf"), "--cluster-node-timeout", "15000",
			"--save", "", "--protected-mode", "no", "--maxmemory", "1gb", "--maxmemory-policy", "volatile-ttl")
		if err != nil {
			return nil, nil, err
		}
		addrs, servers = append(addrs, addr), append(servers, one)
	}
	return addrs, servers, joinRedis(ctx, addrs, chosen, servers)
}

// joinRedis makes a cluster of the servers, each with its share of the slots.
func joinRedis(ctx context.Context, addrs, chosen []string, servers []*process) error {
	const slots = 16384
	host, port, _ := net.SplitHostPort(addrs[0])
	var nodes []*goredis.Client
	defer func() {
		for _, n := range nodes {
			_ = n.Close()
		}
	}()
	for i, addr := range addrs {
		node := goredis.NewClient(&goredis.Options{Addr: addr, DisableIdentity: true})
		nodes = append(nodes, node)
		err := errors.Join(node.ClusterAddSlotsRange(ctx, i*slots/len(addrs), (i+1)*slots/len(addrs)-1).Err(),
			node.Do(ctx, "CLUSTER", "MEET", host, port, chosen[1]).Err())
		if err != nil {
			return fmt.Errorf("join the redis cluster: %w", err)
		}
	}
	for i, node := range nodes {
		err := servers[i].wait(ctx, func() bool {
			info, err := node.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(len(addrs)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
