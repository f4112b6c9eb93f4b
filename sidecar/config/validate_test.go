package config

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryProblemIsToldAtOnceWithItsPlace(t *testing.T) {
	path := write(t, strings.Join([]string{
		"nats:",
		"  embedded: { listen: nowhere, maxPayload: 1GiB }",
		"admin: { listen: 127.0.0.1:99999 }",
		"store: { memoryBytes: lots }",
		"limits: { queue: 0, queu: 3 }",
		"models:",
		"  - { match: a, layout: x }",
		"  - { match: a, layout: x }",
		"  - { tokenizerFile: t.json }",
		"  - { match: b }",
	}, "\n"))
	_, err := Load(Sources{
		Env:   []string{"SEMPROXY_TELEMETRY_LOG_LEVEL=loud", "SEMPROXY_POLICY_WATCH=yes", "SEMPROXY_MODEL=x"},
		Flags: flags(t, "-c", path, "--drain-timeout=-1s", "--compress-workers=many"),
	})
	if err == nil {
		t.Fatal("got no error")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		`--compress-workers: compress.workers: must be a whole number, got "many"`,
		`--drain-timeout: drainTimeout: must be a duration such as 90s, 24h or 7d, got "-1s"`,
		path + `:2:15: nats.embedded.listen: must be host:port such as 127.0.0.1:4222, got "nowhere"`,
		path + `:2:32: nats.embedded.maxPayload: must be 1KiB to 64MiB, got 1GiB`,
		path + `:3:10: admin.listen: must be host:port such as 127.0.0.1:4222, got "127.0.0.1:99999"`,
		path + `:4:10: store.memoryBytes: must be a size such as 256MiB or 20GiB, got lots`,
		path + `:5:21: limits.queu: unknown key, did you mean "queue"?`,
		path + `:5:11: limits.queue: must be 1 to 1048576, got 0`,
		path + `:8:7: models[1].match: must differ from models[0].match, got "a"`,
		path + `:9:5: models[2].match: must be a pattern of model names such as llama-3*`,
		path + `:10:5: models[3]: must have a tokenizerFile, a layout or both`,
		`SEMPROXY_MODEL: unknown environment variable, did you mean "SEMPROXY_MODELS"?`,
		`SEMPROXY_POLICY_WATCH: policy.watch: must be true or false, got "yes"`,
		`SEMPROXY_TELEMETRY_LOG_LEVEL: telemetry.logLevel: must be one of debug, info, warn, error, got "loud"`,
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, w)
		}
		if !found {
			t.Errorf("missing: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d problems, want %d", len(got), len(want))
	}
	if t.Failed() {
		t.Logf("got:\n%v", err)
	}
}

func TestWhatDoesNotGoTogetherIsRefused(t *testing.T) {
	const remote = "--nats-url=nats://nats:4222"
	for _, tt := range []struct {
		name string
		args []string
		want string // empty: valid
	}{
		{"two ways to log in", []string{remote, "--nats-creds-file=a", "--nats-nkey-file=b"}, "--nats-nkey-file: nats.nkeyFile: must not be set together with nats.credsFile"},
		{"certificate without key", []string{remote, "--nats-tls-cert-file=a"}, "--nats-tls-cert-file: nats.tls.certFile: must be set together with nats.tls.keyFile"},
		{"credentials for no server", []string{"--nats-creds-file=a"}, "--nats-creds-file: nats.credsFile: has no effect without nats.url"},
		{"roots for no server", []string{"--nats-tls-ca-file=a"}, "--nats-tls-ca-file: nats.tls.caFile: has no effect without nats.url"},
		{"url of another kind", []string{"--nats-url=http://nats:4222"}, "--nats-url: nats.url: must be URLs such as nats://host:4222, separated by commas"},
		{"url without a host", []string{"--nats-url=nats://nats:4222,nats://"}, "--nats-url: nats.url: must be URLs"},
		{"open to the network without users", []string{"--nats-embedded-listen=0.0.0.0:4222"}, "--nats-embedded-listen: nats.embedded.listen: must be a loopback address unless nats.embedded.usersFile is set"},
		{"open on every address", []string{"--nats-embedded-listen=:4222"}, "--nats-embedded-listen: nats.embedded.listen: must be a loopback address"},
		{"one port twice", []string{"--admin-listen=127.0.0.1:4222"}, "--admin-listen: admin.listen: must have another port"},
		{"page over the bytes in flight", []string{"--limits-in-flight-bytes=1MiB"}, "--limits-in-flight-bytes: limits.inFlightBytes: must be at least compress.maxPageBytes (64MiB), got 1MiB"},
		{"redis that is no address", []string{"--store-redis-addrs=redis://redis:6379"}, "--store-redis-addrs: store.redis.addrs: must be host:port such as redis:6379"},
		{"redis and a folder", []string{"--store-redis-addrs=redis:6379", "--store-dir=d"}, "--store-dir: store.dir: must not be set together with store.redis.addrs"},
		{"sentinels and a cluster", []string{"--store-redis-addrs=redis:6379", "--store-redis-master=m", "--store-redis-cluster"}, "--store-redis-master: store.redis.master: must not be set together with store.redis.cluster"},
		{"a prefix with a hash tag", []string{"--store-redis-addrs=redis:6379", "--store-redis-prefix={a}"}, "--store-redis-prefix: store.redis.prefix: must not contain braces"},
		{"a password for no redis", []string{"--store-redis-password-file=p"}, "--store-redis-password-file: store.redis.passwordFile: has no effect without store.redis.addrs"},
		{"a user without a password", []string{"--store-redis-addrs=redis:6379", "--store-redis-username-file=u"}, "--store-redis-username-file: store.redis.usernameFile: must be set together with store.redis.passwordFile"},
		{"roots for no TLS", []string{"--store-redis-addrs=redis:6379", "--store-redis-tls-ca-file=c"}, "--store-redis-tls-ca-file: store.redis.tls.caFile: has no effect without store.redis.tls.enabled"},
		{"half a certificate", []string{"--store-redis-addrs=redis:6379", "--store-redis-tls-enabled", "--store-redis-tls-cert-file=c"}, "--store-redis-tls-cert-file: store.redis.tls.certFile: must be set together with store.redis.tls.keyFile"},
		{"no time at all", []string{"--store-redis-timeout=1ms"}, "--store-redis-timeout: store.redis.timeout: must be 10ms to 1m"},
		{"list that is not YAML", []string{"--models=[{"}, "--models: is not valid YAML"},
		{"list with an unknown key", []string{"--models=[{match: a, layuot: b}]"}, "--models: models[0].layuot: unknown key, did you mean \"layout\"?"},
		{"file that is not there", []string{"--config=nowhere.yaml"}, "nowhere.yaml: cannot be read: no such file or directory"},

		{"a cluster with everything", []string{
			"--store-redis-addrs=a:6379, [::1]:6380", "--store-redis-cluster", "--store-redis-prefix=semproxy:", "--store-redis-username-file=u",
			"--store-redis-password-file=p", "--store-redis-tls-enabled", "--store-redis-tls-ca-file=c",
			"--store-encryption-keys-dir=k",
		}, ""},
		{"several servers", []string{"--nats-url=nats://a:4222, tls://b:4222", "--nats-creds-file=c"}, ""},
		{"open to the network with users", []string{"--nats-embedded-listen=0.0.0.0:4222", "--nats-embedded-users-file=u"}, ""},
		{"ports that the system chooses", []string{"--nats-embedded-listen=localhost:0", "--admin-listen=[::1]:0"}, ""},
		{"no port at all", []string{"--nats-embedded-listen=-"}, ""},
		{"admin on every address", []string{"--admin-listen=:9090"}, ""},
		{"a list on one line", []string{"--models=[{match: a, layout: b}]"}, ""},
		{"bare flag that switches on", []string{"--policy-watch"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(Sources{Flags: flags(t, tt.args...)})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTheProxyIsCheckedWhenItListens(t *testing.T) {
	on := []string{"--proxy-listen=127.0.0.1:8080", "--proxy-engine-url=http://127.0.0.1:8000"}
	keys := slices.Concat(on, []string{"--proxy-identity-keys-file=k"})
	jwt := slices.Concat(on, []string{"--proxy-identity-jwt-jwks-file=j", "--proxy-identity-jwt-issuer=i", "--proxy-identity-jwt-audience=a"})
	with := func(base []string, more ...string) []string { return slices.Concat(base, more) }
	for _, tt := range []struct {
		name string
		args []string
		want string // empty: valid
	}{
		{"keys", keys, ""},
		{"tokens", jwt, ""},
		{"header", with(on, "--proxy-identity-header-name=X-Tenant", "--proxy-identity-header-peers=[10.0.0.0/8]"), ""},
		{"everybody is one tenant", with(on, "--proxy-identity-anonymous-tenant=dev"), ""},
		{"nothing is checked while it is off", []string{"--proxy-engine-kind=other"}, ""},

		{"no way to tell tenants apart", on, "default: proxy.identity: must have a way to tell tenants apart"},
		{"no engine", []string{"--proxy-listen=:8080", "--proxy-identity-keys-file=k"}, "default: proxy.engine.url: must be a base URL"},
		{"an engine with a path", with(keys, "--proxy-engine-url=http://h:1/v1"), "--proxy-engine-url: proxy.engine.url: must be a base URL"},
		{"an engine with a password", with(keys, "--proxy-engine-url=http://u:hunter2@h:1"), "--proxy-engine-url: proxy.engine.url: must be a base URL"},
		{"an unknown engine", with(keys, "--proxy-engine-kind=other"), "--proxy-engine-kind: proxy.engine.kind: must be one of vllm, tgi, openai"},
		{"the admin's port", with(keys, "--proxy-listen=:9090"), "--proxy-listen: proxy.listen: must have another port than admin.listen"},
		{"NATS's port", with(keys, "--proxy-listen=:4222"), "--proxy-listen: proxy.listen: must have another port than nats.embedded.listen"},
		{"a certificate without a key", with(keys, "--proxy-tls-cert-file=c"), "--proxy-tls-cert-file: proxy.tls.certFile: must be set together"},
		{"client roots without TLS", with(keys, "--proxy-tls-client-ca-file=c"), "--proxy-tls-client-ca-file: proxy.tls.clientCaFile: has no effect"},
		{"tokens for anybody", with(jwt, "--proxy-identity-jwt-audience="), "--proxy-identity-jwt-audience: proxy.identity.jwt.audience: must be set"},
		{"two key sets", with(jwt, "--proxy-identity-jwt-jwks-url=https://h/j"), "--proxy-identity-jwt-jwks-url: proxy.identity.jwt.jwksUrl: must not be set together"},
		{"a header from anybody", with(on, "--proxy-identity-header-name=X-Tenant"), "--proxy-identity-header-name: proxy.identity.header.name: needs"},
		{"a peer that is no network", with(keys, "--proxy-identity-header-peers=[10.0.0.1]"), "--proxy-identity-header-peers: proxy.identity.header.peers[0]: must be a network"},
		{"subjects without certificates", with(keys, "--proxy-identity-header-subjects=[gw]"), "--proxy-identity-header-subjects: proxy.identity.header.subjects: have no effect"},
		{"no memory for one body", with(keys, "--proxy-limits-buffered-bytes=16MiB"), "--proxy-limits-buffered-bytes: proxy.limits.bufferedBytes: must be more than"},
		{"a limit of zero", with(keys, "--proxy-limits-concurrent=0"), "--proxy-limits-concurrent: proxy.limits.concurrent: must be 1 to"},
		{"writable for anybody", []string{"--admin-writable"}, "--admin-writable: admin.writable: must not be set without admin.tokenFile"},
		{"writable with a token", []string{"--admin-writable", "--admin-token-file=t"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(Sources{Flags: flags(t, tt.args...)})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2")):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestSecretsAreNotInProblems(t *testing.T) {
	const secret = "hunter2"
	file := write(t, "nats: { url: { a: "+secret+" } }\n")
	for name, s := range map[string]Sources{
		"variable": {Env: []string{"SEMPROXY_NATS_URL=nats://u:" + secret + "@:x"}},
		"flag":     {Flags: flags(t, "--nats-url=http://"+secret+"@host")},
		"file":     {Flags: flags(t, "-c", file)},
	} {
		_, err := Load(s)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want an error without the secret", name, err)
		}
	}
}
