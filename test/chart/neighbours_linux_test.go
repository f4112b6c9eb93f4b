package chart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/client"
)

const neighbourPolicy = `apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5 } }
tenants:
  acme: { rules: [ { profile: half } ] }
  globex: { rules: [ { profile: half } ] }
  initech: { rules: [ { profile: half } ] }
`

// Pages: one that is stored before anything fails, and one that must be stored anew.
const known, fresh = "kjv", "kjv_facts"

// neighbourhood is "semproxy serve" between a real redis-server and a real nats-server, one of which fails.
type neighbourhood struct {
	t       *testing.T
	redis   *redistest.Server
	nats    *server.Server
	options *server.Options
	args    []string
	admin   string
	log     *safeBuffer
}

// series are a metric's with that value of a label.
type series struct{ metric, value string }

// failure is of a neighbour, and how it shows.
type failure struct {
	name  string
	start func(n *neighbourhood) // nil: with a Redis and a NATS that serve
	fail  func(n *neighbourhood)
	heal  func(n *neighbourhood) // nil: nothing can be done while it runs

	log    []string // each on a line of its own
	metric series   // of which more is seen than before
	part   string   // that /readyz/pages names
	reason string   // by these words
	code   string   // that a page gets meanwhile; "-": nothing is sent, "ok": it is served
	job    string   // that a job of one of the tenants gets
	alerts [][2]string
}

func failuresOfRedis() []failure {
	return []failure{
		{
			name: "Redis full", fail: config("maxmemory", "1"), heal: config("maxmemory", "0"),
			log:    []string{"neighbour_refuses neighbour=redis kind=OOM", "page_plane_degraded part=store", "redis_away"},
			metric: series{"semproxy_neighbour_refusals_total", "OOM"}, part: "store", reason: "takes no writes by scripts", code: "store.unavailable",
			alerts: [][2]string{{"SemproxyDegraded", "store"}, {"SemproxyNeighbourRefuses", "OOM"}, {"SemproxyStoreAway", ""}},
		},
		{
			name: "Redis without scripts", start: withRedisUser,
			fail: acl("-@scripting"), heal: acl("+@scripting"),
			log:    []string{"neighbour_refuses neighbour=redis kind=NOPERM", "page_plane_degraded part=store"},
			metric: series{"semproxy_neighbour_refusals_total", "NOPERM"}, part: "store", reason: "takes no writes by scripts", code: "store.unavailable",
			alerts: [][2]string{{"SemproxyDegraded", "store"}, {"SemproxyNeighbourRefuses", "NOPERM"}},
		},
		{
			name: "Redis read-only", fail: replicaOf("127.0.0.1", "1"), heal: replicaOf("NO", "ONE"),
			log:    []string{"neighbour_refuses neighbour=redis kind=READONLY", "page_plane_degraded part=store"},
			metric: series{"semproxy_neighbour_refusals_total", "READONLY"}, part: "store", reason: "takes no writes by scripts", code: "store.unavailable",
			alerts: [][2]string{{"SemproxyDegraded", "store"}, {"SemproxyNeighbourRefuses", "READONLY"}, {"SemproxyStoreAway", ""}},
		},
		{
			name: "Redis away",
			fail: func(n *neighbourhood) { n.redis.Kill() }, heal: func(n *neighbourhood) { n.redis.Restart(n.t) },
			log:    []string{"redis_away", "page_plane_degraded part=store"},
			metric: series{"semproxy_store_events_total", "failure"}, part: "store", reason: "redis does not answer", code: "store.unavailable",
			alerts: [][2]string{{"SemproxyDegraded", "store"}, {"SemproxyStoreAway", ""}},
		},
	}
}

func failuresOfNATS() []failure {
	return []failure{
		{
			name:  "NATS without permission to subscribe",
			start: func(n *neighbourhood) { n.startNATS(&server.Options{Users: users(nil)}, "sidecar:pw@"); n.startRedis() },
			fail: func(n *neighbourhood) {
				n.reload(func(o *server.Options) {
					o.Users = users(&server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}})
				})
			},
			heal:   func(n *neighbourhood) { n.reload(func(o *server.Options) { o.Users = users(nil) }) },
			log:    []string{"neighbour_refuses neighbour=nats kind=denied_subscribe", "page_plane_degraded part=subscriptions"},
			metric: series{"semproxy_neighbour_refusals_total", "denied_subscribe"}, part: "subscriptions", reason: "kv.*.v1.compress", code: "unreachable",
			alerts: [][2]string{{"SemproxyDegraded", "subscriptions"}, {"SemproxyNeighbourRefuses", "denied_subscribe"}},
		},
		{
			name: "NATS away at the start",
			start: func(n *neighbourhood) {
				n.options = &server.Options{Host: "127.0.0.1", Port: freePorts(n.t, 1)[0]}
				n.args = append(n.args, "--nats-url", fmt.Sprintf("nats://127.0.0.1:%d", n.options.Port))
				n.startRedis()
			},
			fail:   func(*neighbourhood) {},
			heal:   func(n *neighbourhood) { n.startNATS(n.options, "") },
			log:    []string{"nats_away servers=127.0.0.1:", "page_plane_degraded part=nats"},
			metric: series{"semproxy_neighbour_refusals_total", "away"}, part: "nats", reason: "connected", code: "-",
			alerts: [][2]string{{"SemproxyDegraded", "nats"}, {"SemproxyNeighbourRefuses", "away"}},
		},
		{
			name:   "NATS reloaded with less max_payload",
			fail:   func(n *neighbourhood) { n.reload(func(o *server.Options) { o.MaxPayload = 2 << 20 }) },
			heal:   func(n *neighbourhood) { n.reload(func(o *server.Options) { o.MaxPayload = 8 << 20 }) },
			log:    []string{"nats_max_payload_changed", "page_plane_degraded part=max_payload"},
			metric: series{"semproxy_degraded", "max_payload"}, part: "max_payload", reason: "max_payload is 2097152 bytes", code: "ok",
			alerts: [][2]string{{"SemproxyDegraded", "max_payload"}},
		},
		{
			name: "JetStream too small",
			start: func(n *neighbourhood) {
				n.startNATS(&server.Options{JetStream: true, StoreDir: n.t.TempDir(), JetStreamMaxStore: 70 << 20, JetStreamMaxMemory: 1 << 20}, "")
				n.startRedis()
				n.args = append(n.args, "--jobs-enabled", "--jobs-max-bytes", "32MiB") // 56 MiB for a tenant
			},
			fail:   func(*neighbourhood) {},
			log:    []string{"neighbour_refuses neighbour=jetstream kind=no_room", "page_plane_degraded part=jobs_room"},
			metric: series{"semproxy_neighbour_refusals_total", "no_room"}, part: "jobs_room", reason: "no room for the jobs of 2 tenants", code: "ok", job: "job.no_room",
			alerts: [][2]string{{"SemproxyDegraded", "jobs_room"}, {"SemproxyNeighbourRefuses", "no_room"}},
		},
	}
}

// A neighbour that fails shows in the log, in a metric, in readiness and in an alert of the chart, and senders hear what they can
// do; when it is back, all of that is over.
func TestAFailingNeighbourShowsInLogMetricReadinessAndAlert(t *testing.T) {
	redistest.Need(t)
	manifests := objects(t, render(t, "--set=prometheusRule.enabled=true"))
	for _, c := range slices.Concat(failuresOfRedis(), failuresOfNATS()) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := &neighbourhood{t: t, log: new(safeBuffer)}
			if c.start == nil {
				n.startNATS(&server.Options{}, "")
				n.startRedis()
			} else {
				c.start(n)
			}
			n.serve()
			before := ""
			if fromTheStart := c.heal == nil || n.nats == nil; !fromTheStart {
				before = n.wantWell()
			}
			c.fail(n)
			n.wantFelt(&c)
			n.wantTold(&c, manifests, before)
			if c.heal != nil {
				c.heal(n)
				n.wantOver(&c)
			}
		})
	}
}

// wantWell returns the metrics while nothing fails.
func (n *neighbourhood) wantWell() string {
	n.t.Helper()
	until(n.t, "all is well", func() bool { return n.status("/readyz/pages") == http.StatusOK })
	if got := n.send(known); got != "ok" {
		n.t.Fatalf("a page before: got %s", got)
	}
	return n.metrics()
}

// wantFelt waits until readiness names the failure, and senders get its codes.
func (n *neighbourhood) wantFelt(c *failure) {
	n.t.Helper()
	until(n.t, c.part+" is missing in readiness", func() bool {
		return n.status("/readyz/pages") == http.StatusServiceUnavailable && strings.Contains(n.checks(c.part), c.reason)
	})
	if c.code != "-" {
		page := known
		if c.code == "store.unavailable" {
			page = fresh
		}
		until(n.t, "a page gets "+c.code, func() bool { return n.send(page) == c.code })
	}
	if slices.Contains(c.alerts, [2]string{"SemproxyStoreAway", ""}) {
		until(n.t, "the breaker opens", func() bool {
			n.send(fresh)
			return sum(n.metrics(), series{"semproxy_store_breakers_open", ""}) == 1
		})
	}
	if c.job != "" {
		until(n.t, "a job gets "+c.job, func() bool { return n.submit("acme") == c.job || n.submit("globex") == c.job })
	}
}

// wantTold waits until the log, the metrics and the chart's alerts tell of the failure.
func (n *neighbourhood) wantTold(c *failure, manifests []object, before string) {
	n.t.Helper()
	for _, line := range c.log {
		until(n.t, "the log has "+line, func() bool { return strings.Contains(n.lines(), line) })
	}
	if said := strings.Count(n.lines(), c.log[0]); said != 1 {
		n.t.Errorf("%s: got %d lines, want one in a minute", c.log[0], said)
	}
	until(n.t, c.metric.metric+" has grown", func() bool { return sum(n.metrics(), c.metric) > sum(before, c.metric) })
	until(n.t, "semproxy_degraded", func() bool { return sum(n.metrics(), series{"semproxy_degraded", c.part}) == 1 })
	first := n.metrics()
	// A minute of Prometheus's is shorter here, but not so short that no probe is refused in it.
	until(n.t, "the fault is seen again", func() bool {
		return c.metric.metric == "semproxy_degraded" || sum(n.metrics(), c.metric) > sum(first, c.metric)
	})
	second := n.metrics()
	for _, a := range c.alerts {
		alerts(n.t, manifests, a[0], a[1], before, first, second)
	}
}

// wantOver waits until nothing is left of the failure.
func (n *neighbourhood) wantOver(c *failure) {
	n.t.Helper()
	until(n.t, "it is ready again", func() bool { return n.status("/readyz/pages") == http.StatusOK })
	until(n.t, "a page is served again", func() bool { return n.send(fresh) == "ok" })
	until(n.t, "the log says so", func() bool { return strings.Contains(n.lines(), "page_plane_recovered part="+c.part) })
	until(n.t, "nothing is degraded", func() bool { return sum(n.metrics(), series{"semproxy_degraded", ""}) == 0 })
}

func (n *neighbourhood) startRedis() {
	n.redis = redistest.Start(n.t)
	n.args = append(n.args, "--store-redis-addrs", n.redis.Addr, "--store-redis-timeout", "500ms", "--store-redis-required")
}

// startNATS runs a server; it fills options in, so that they can be changed and taken up again.
func (n *neighbourhood) startNATS(options *server.Options, user string) {
	n.t.Helper()
	options.Host, options.NoSigs, options.NoLog = "127.0.0.1", true, true
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	if options.MaxPayload == 0 {
		options.MaxPayload = 8 << 20
	}
	s, err := server.NewServer(options)
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	n.t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		n.t.Fatal("the NATS server did not start")
	}
	if n.options == nil {
		n.args = append(n.args, "--nats-url", strings.Replace(s.ClientURL(), "nats://", "nats://"+user, 1))
	}
	n.nats, n.options = s, options
}

// reload changes the running server's options, as SIGHUP does with its file.
func (n *neighbourhood) reload(change func(*server.Options)) {
	n.t.Helper()
	next := *n.options
	next.Port = n.nats.Addr().(*net.TCPAddr).Port
	change(&next)
	if err := n.nats.ReloadOptions(&next); err != nil {
		n.t.Fatal(err)
	}
}

// users are the sidecar, with these permissions, and a sender.
func users(sidecar *server.Permissions) []*server.User {
	return []*server.User{{Username: "sidecar", Password: "pw", Permissions: sidecar}, {Username: "sender", Password: "pw"}}
}

func withRedisUser(n *neighbourhood) {
	n.startNATS(&server.Options{}, "")
	n.startRedis()
	admin := n.redis.Client(n.t)
	if err := admin.Do(n.t.Context(), "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all").Err(); err != nil {
		n.t.Fatal(err)
	}
	n.args = append(n.args, "--store-redis-username-file", writeFile(n.t, "user", "app"), "--store-redis-password-file", writeFile(n.t, "password", "pw"))
}

func config(name, value string) func(*neighbourhood) {
	return redisCommand("CONFIG", "SET", name, value)
}
func acl(rule string) func(*neighbourhood) { return redisCommand("ACL", "SETUSER", "app", rule) }
func replicaOf(host, port string) func(*neighbourhood) {
	return redisCommand("REPLICAOF", host, port)
}

func redisCommand(words ...any) func(*neighbourhood) {
	return func(n *neighbourhood) {
		n.t.Helper()
		if err := n.redis.Client(n.t).Do(n.t.Context(), words...).Err(); err != nil {
			n.t.Fatal(err)
		}
	}
}

// serve runs the sidecar until the test ends.
func (n *neighbourhood) serve() {
	n.t.Helper()
	admin := fmt.Sprintf("127.0.0.1:%d", freePorts(n.t, 1)[0])
	n.admin = "http://" + admin
	cmd := exec.Command(binary(n.t, "semproxy-static"), append([]string{"serve", "--admin-listen", admin, "--telemetry-log-format", "text",
		"--policy-path", writeFile(n.t, "policy.yaml", neighbourPolicy)}, n.args...)...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil || n.t.Failed() {
			n.t.Errorf("the sidecar ended with %v; it wrote\n%s", err, n.log)
		}
	})
	until(n.t, "the sidecar runs", func() bool { return n.status("/healthz") == http.StatusOK })
}

func (n *neighbourhood) status(path string) int {
	resp, err := http.Get(n.admin + path)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// checks is what readiness says of a part.
func (n *neighbourhood) checks(part string) string {
	for _, check := range strings.Split(body(n.t, n.admin+"/readyz/pages"), `"name":`) {
		if strings.HasPrefix(strings.TrimSpace(check), `"`+part+`"`) {
			return check
		}
	}
	return ""
}

func (n *neighbourhood) metrics() string { return body(n.t, n.admin+"/metrics") }

// lines is the log, without the names of what stands first.
func (n *neighbourhood) lines() string { return strings.ReplaceAll(n.log.String(), "msg=", "") }

// ask is the code that a sender gets: ok, one of the sidecar's, or unreachable.
func (n *neighbourhood) ask(tenant, name string, question func(context.Context, *client.Client, []byte) error) string {
	n.t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "configs", "demo", name+".page.safetensors"))
	if err != nil {
		n.t.Fatal(err)
	}
	url := n.nats.ClientURL()
	if len(n.options.Users) > 0 {
		url = strings.Replace(url, "nats://", "nats://sender:pw@", 1)
	}
	conn, err := nats.Connect(url)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	c, err := client.New(conn, client.Options{Tenant: tenant, MaxAttempts: 1, Timeout: 5 * time.Second})
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	err = question(n.t.Context(), c, page)
	var refused *client.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return refused.Code
	}
	return err.Error()
}

func (n *neighbourhood) send(page string) string {
	return n.ask("acme", page, func(ctx context.Context, c *client.Client, page []byte) error {
		_, err := c.Compress(ctx, page)
		return err
	})
}

func (n *neighbourhood) submit(tenant string) string {
	return n.ask(tenant, known, func(ctx context.Context, c *client.Client, page []byte) error {
		_, err := c.Submit(ctx, "", page)
		return err
	})
}

// sum of a metric's series whose labels have that value ("": all).
func sum(metrics string, of series) int {
	total := 0
	for name, value := range samples(metrics) {
		if strings.HasPrefix(name, of.metric+"{") && (of.value == "" || strings.Contains(name, `"`+of.value+`"`)) {
			n, _ := strconv.Atoi(value)
			total += n
		}
	}
	return total
}
