package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/semproxy/semproxy/cmd/semproxy/doctor"
	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/store/redistest"
)

// natsWith runs a nats-server with a configuration, in this process.
func natsWith(t *testing.T, conf string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:-1\n"+strings.ReplaceAll(conf, "DIR", t.TempDir())), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.NoLog, opts.NoSigs = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("nats-server does not start")
	}
	return s.ClientURL()
}

// withUser puts a name and a password into a URL.
func withUser(url, user string) string { return strings.Replace(url, "nats://", "nats://"+user+"@", 1) }

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

func text(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// engineLike answers like an engine; a path that is not in routes is 404.
func engineLike(t *testing.T, routes map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := routes[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if answer == "401" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

var vllmRoutes = map[string]string{
	"/v1/models": `{"data": [{"id": "llama"}]}`, "/version": `{"version": "0.33.0"}`, "/tokenize": `{"tokens": [1]}`, "/metrics": "vllm:kv_cache_usage_perc 0.1\n",
	"/server_info": `{"vllm_config": "kv_connector='SemproxyConnector' attention_backend=CUSTOM"}`,
}

func vllmWithout(path, instead string) map[string]string {
	m := map[string]string{}
	for k, v := range vllmRoutes {
		m[k] = v
	}
	if delete(m, path); instead != "" {
		m[path] = instead
	}
	return m
}

// oldCertificate has ended.
func oldCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return text(t, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		text(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

// doctorOf looks at a configuration of variables.
func doctorOf(t *testing.T, vars ...string) *doctor.Report {
	t.Helper()
	r := &doctor.Report{}
	examine(context.Background(), r, config.Sources{Env: append([]string{
		"SEMPROXY_ADMIN_LISTEN=127.0.0.1:0", "SEMPROXY_NATS_EMBEDDED_LISTEN=127.0.0.1:0", "SEMPROXY_COMPRESS_DEVICE=cpu",
	}, vars...)})
	return r
}

const proxied = "SEMPROXY_PROXY_LISTEN=127.0.0.1:0"

const anonymous = "SEMPROXY_PROXY_IDENTITY_ANONYMOUS_TENANT=acme"

// brokenSetUp is broken for real: vars makes it and returns the variables that lead there. The doctor names the check that fails, with
// words of what is wrong and of what repairs it.
type brokenSetUp struct {
	name, check, what, remedy string
	vars                      func(t *testing.T) []string
}

func brokenFiles() []brokenSetUp {
	return []brokenSetUp{
		{"a key of the configuration that is not", "configuration", "unknown", "docs/reference/configuration.md", func(t *testing.T) []string {
			return []string{"SEMPROXY_CONFIG=" + text(t, "c.yaml", "compres: { workers: 1 }\n")}
		}},
		{"a policy with a mistake", "policy", "ratio", "semproxy policy check", func(t *testing.T) []string {
			return []string{"SEMPROXY_POLICY_PATH=" + text(t, "p.yaml", "apiVersion: semproxy.io/v1\nprofiles: { a: { method: weighted, ratio: 2 } }\n")}
		}},
		{"keys that are a list", "keys", "must be a mapping", "semproxy keys new --file", func(t *testing.T) []string {
			return []string{proxied, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, vllmRoutes), "SEMPROXY_PROXY_IDENTITY_KEYS_FILE=" + text(t, "keys.yaml", "# a key\n  - { tenant: acme, sha256: aa }\n")}
		}},
		{"a certificate that has ended", "tls", "ended", "renew", func(t *testing.T) []string {
			cert, key := oldCertificate(t)
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, vllmRoutes), "SEMPROXY_PROXY_TLS_CERT_FILE=" + cert, "SEMPROXY_PROXY_TLS_KEY_FILE=" + key}
		}},
		{"a tokenizer that is damaged", "tokenizer", "tokenizer", "tokenizer.json", func(t *testing.T) []string {
			return []string{"SEMPROXY_CONFIG=" + text(t, "c.yaml", "models: [ { match: \"*\", tokenizerFile: "+text(t, "tokenizer.json", "{")+" } ]\n")}
		}},
		{"a port that is taken", "listen", "another program listens", "another port", func(t *testing.T) []string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return []string{"SEMPROXY_NATS_EMBEDDED_LISTEN=" + l.Addr().String()}
		}},
		{"a folder that cannot be made", "store.dir", "cannot be written", "folder", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_DIR=" + filepath.Join(text(t, "file", "x"), "below")}
		}},
	}
}

func brokenNATS() []brokenSetUp {
	deny := `authorization { users: [ { user: a, password: b, permissions: { subscribe: { deny: "kv.*.v1.compress" }, publish: ">" } } ] }` + "\nmax_payload: 8MB\n"
	return []brokenSetUp{
		{"NATS that nobody runs", "nats.connect", "nobody listens at", "start the server", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=nats://" + nobody(t)}
		}},
		{"NATS of a name that is none", "nats.connect", "cannot be resolved", "spelling", func(*testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=nats://no-such-host.invalid:4222"}
		}},
		{"NATS with another password", "nats.auth", "does not let the sidecar in", "nats.credsFile", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=" + withUser(natsWith(t, "authorization { user: a, password: b }"), "a:c")}
		}},
		{"NATS that lets no page through", "nats.subscribe", "kv.*.v1.compress", "kv.>", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=" + withUser(natsWith(t, deny), "a:b")}
		}},
		{"NATS with small messages", "nats.max_payload", "1.0 MiB", "max_payload: 8MB", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=" + natsWith(t, "")}
		}},
		{"jobs without JetStream", "nats.jetstream", "no JetStream", "jetstream {", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=" + natsWith(t, "max_payload: 8MB"), "SEMPROXY_JOBS_ENABLED=true"}
		}},
		{"JetStream that is too small", "nats.jetstream", "may store 1.0 MiB", "max_file", func(t *testing.T) []string {
			return []string{"SEMPROXY_NATS_URL=" + natsWith(t, "max_payload: 8MB\njetstream { store_dir: \"DIR\" }\naccounts { A { jetstream { max_file: 1MB }, users: [ { user: a, password: b } ] } }\nno_auth_user: a"), "SEMPROXY_JOBS_ENABLED=true"}
		}},
	}
}

func brokenRedis() []brokenSetUp {
	return []brokenSetUp{
		{"Redis that nobody runs", "redis.connect", "nobody listens at", "start the server", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + nobody(t)}
		}},
		{"Redis that wants a password", "redis.connect", "wants a password", "passwordFile", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + redistest.Start(t, "--requirepass", "secret").Addr}
		}},
		{"Redis with another password", "redis.connect", "refuses the password", "passwordFile", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + redistest.Start(t, "--requirepass", "secret").Addr, "SEMPROXY_STORE_REDIS_PASSWORD_FILE=" + text(t, "p", "other")}
		}},
		{"Redis that is full", "redis.write", "the server is full", "raise maxmemory", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction").Addr}
		}},
		{"Redis that evicts", "redis.memory", "allkeys-lru", "noeviction", func(t *testing.T) []string {
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + redistest.Start(t, "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru").Addr}
		}},
		{"Redis whose user may run no scripts", "redis.scripts", "may not do that", "+@scripting", func(t *testing.T) []string {
			s := redistest.Start(t, "--maxmemory", "1gb")
			if err := s.Client(t).Do(t.Context(), "ACL", "SETUSER", "u", "on", ">secret", "~*", "+@all", "-@scripting").Err(); err != nil {
				t.Fatal(err)
			}
			return []string{"SEMPROXY_STORE_REDIS_ADDRS=" + s.Addr, "SEMPROXY_STORE_REDIS_PASSWORD_FILE=" + text(t, "p", "secret"), "SEMPROXY_STORE_REDIS_USERNAME_FILE=" + text(t, "u", "u")}
		}},
	}
}

func brokenEngines() []brokenSetUp {
	return []brokenSetUp{
		{"an engine that nobody runs", "engine.connect", "nobody listens at", "proxy.engine.url", func(t *testing.T) []string {
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=http://" + nobody(t)}
		}},
		{"an engine that wants a key", "engine.auth", "wants another key", "apiKeyFile", func(t *testing.T) []string {
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, map[string]string{"/v1/models": "401"})}
		}},
		{"another engine than vLLM", "engine.kind", "another engine", "proxy.engine.kind", func(t *testing.T) []string {
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, vllmWithout("/version", ""))}
		}},
		{"vLLM without the connector", "engine.adapter", "without semproxy's connector", "SemproxyConnector", func(t *testing.T) []string {
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, vllmWithout("/server_info", `{"vllm_config": "kv_connector=None"}`))}
		}},
		{"vLLM with an attention backend that knows no bias", "engine.adapter", "knows no bias", "--attention-backend CUSTOM", func(t *testing.T) []string {
			return []string{proxied, anonymous, "SEMPROXY_PROXY_ENGINE_URL=" + engineLike(t, vllmWithout("/server_info", "SemproxyConnector FLASH_ATTN"))}
		}},
	}
}

func TestDoctorNamesTheCauseOfBrokenSetUps(t *testing.T) {
	for _, c := range slices.Concat(brokenFiles(), brokenNATS(), brokenRedis(), brokenEngines()) {
		t.Run(c.name, func(t *testing.T) {
			r := doctorOf(t, c.vars(t)...)
			bad := 0
			for _, f := range r.Findings {
				if f.Status == doctor.OK || f.Check == "policy" && c.check != "policy" {
					continue // without a policy there is a warning in all of them
				}
				if bad++; f.Check == c.check && strings.Contains(f.What, c.what) && strings.Contains(f.Remedy, c.remedy) {
					bad = -100
				}
			}
			if bad >= 0 {
				t.Errorf("got %+v, want %s with %q and the remedy %q", r.Findings, c.check, c.what, c.remedy)
			}
		})
	}
}

func TestDoctorFindsNothingWhereNothingIsWrong(t *testing.T) {
	url := natsWith(t, "max_payload: 8MB\njetstream { store_dir: \"DIR\" }")
	redis := redistest.Start(t, "--maxmemory", "1gb", "--maxmemory-policy", "noeviction")
	policy := text(t, "p.yaml", "apiVersion: semproxy.io/v1\ntenants: { acme: { rules: [ { profile: balanced } ] } }\n")
	keys := filepath.Join(t.TempDir(), "keys.yaml")
	if _, err := runCommand(t, "keys", "new", "--tenant", "acme", "--file", keys); err != nil {
		t.Fatal(err)
	}
	r := doctorOf(t, "SEMPROXY_NATS_URL="+url, "SEMPROXY_JOBS_ENABLED=true", "SEMPROXY_STORE_REDIS_ADDRS="+redis.Addr, "SEMPROXY_POLICY_PATH="+policy, proxied,
		"SEMPROXY_PROXY_ENGINE_URL="+engineLike(t, vllmRoutes), "SEMPROXY_PROXY_IDENTITY_KEYS_FILE="+keys)
	if r.Failed+r.Warned > 0 || len(r.Findings) < 15 {
		t.Errorf("got %d failures and %d warnings in %+v", r.Failed, r.Warned, r.Findings)
	}
	if n, err := redis.Client(t).DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("the doctor left %d keys in Redis (%v)", n, err)
	}
}

// runCommand runs semproxy in this process.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errOut strings.Builder
	err := run(t.Context(), args, &out, &errOut)
	return out.String(), err
}

func TestExitCodesTellTheKindOfAFailure(t *testing.T) {
	bad := text(t, "p.yaml", "apiVersion: semproxy.io/v1\nprofiles: { a: { method: magic } }\n")
	for _, c := range []struct {
		want int
		args []string
	}{
		{exit.Usage, []string{"nonsense"}}, {exit.Usage, []string{"demo", "--nonsense"}}, {exit.Usage, []string{"doctor", "-o", "xml"}}, {exit.Usage, []string{"compress"}},
		{exit.Refused, []string{"policy", "check", bad}}, {exit.Refused, []string{"compress", bad}}, {exit.Refused, []string{"eval", "--methods", "magic"}},
		{exit.Unavailable, []string{"inspect", "p1", "--admin", "http://" + nobody(t)}},
		{exit.Failed, []string{"doctor", "--admin", "http://" + nobody(t)}},
	} {
		_, err := runCommand(t, c.args...)
		if err == nil || exit.Code(err) != c.want {
			t.Errorf("%v: got %v, code %d, want %d", c.args, err, exit.Code(err), c.want)
		}
	}
}

func TestAKeyIsNeverInTheFileOfKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	for _, tenant := range []string{"acme", "globex"} {
		key, err := runCommand(t, "keys", "new", "--tenant", tenant, "--name", tenant+"-web", "--file", file)
		if err != nil || !strings.HasPrefix(key, "sp-") {
			t.Fatalf("got %q, %v, want the key alone", key, err)
		}
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), strings.TrimSpace(key)) || !strings.Contains(string(text), "tenant: "+tenant) {
			t.Errorf("got %v and\n%s\nwant the entry without the key", err, text)
		}
	}
	if r := doctorOf(t, proxied, "SEMPROXY_PROXY_ENGINE_URL="+engineLike(t, vllmRoutes), "SEMPROXY_PROXY_IDENTITY_KEYS_FILE="+file); r.Failed > 0 {
		t.Errorf("the file that was written is refused: %+v", r.Findings)
	}
	broken := text(t, "other.yaml", "- a list\n")
	if _, err := runCommand(t, "keys", "new", "--tenant", "acme", "--file", broken); err == nil || !strings.Contains(err.Error(), "is no file of keys") {
		t.Errorf("a file of another kind: got %v", err)
	}
	if text, _ := os.ReadFile(broken); string(text) != "- a list\n" {
		t.Errorf("a file of another kind was changed: %q", text)
	}
}
