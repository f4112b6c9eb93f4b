package config

import (
	"regexp"
	"testing"

	"github.com/spf13/pflag"
)

func TestNamesAreDerivedFromThePath(t *testing.T) {
	byPath := make(map[string]Key)
	for _, k := range Keys() {
		byPath[k.Path] = k
	}
	for _, want := range []Key{
		{Path: "nats.url", Env: "SEMPROXY_NATS_URL", Flag: "nats-url", Kind: "text", Secret: true},
		{Path: "nats.tls.caFile", Env: "SEMPROXY_NATS_TLS_CA_FILE", Flag: "nats-tls-ca-file", Kind: "text"},
		{Path: "nats.embedded.maxPayload", Env: "SEMPROXY_NATS_EMBEDDED_MAX_PAYLOAD", Flag: "nats-embedded-max-payload", Kind: "size", Default: "8MiB"},
		{Path: "policy.watch", Env: "SEMPROXY_POLICY_WATCH", Flag: "policy-watch", Kind: "true|false", Default: "true"},
		{Path: "limits.queue", Env: "SEMPROXY_LIMITS_QUEUE", Flag: "limits-queue", Kind: "number", Default: "256"},
		{Path: "models", Env: "SEMPROXY_MODELS", Flag: "models", Kind: "list", Default: "[]"},
		{Path: "drainTimeout", Env: "SEMPROXY_DRAIN_TIMEOUT", Flag: "drain-timeout", Kind: "duration", Default: "25s"},
	} {
		got, ok := byPath[want.Path]
		got.Help, got.index = "", nil
		if !ok || got.Path != want.Path || got.Env != want.Env || got.Flag != want.Flag || got.Kind != want.Kind ||
			got.Default != want.Default || got.Secret != want.Secret {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestEveryKeyHasOneNameOfEachKindAndAHelpText(t *testing.T) {
	envName := regexp.MustCompile(`^SEMPROXY(_[A-Z]+)+$`)
	seen := make(map[string]string)
	for _, k := range Keys() {
		for _, name := range []string{k.Path, k.Env, "--" + k.Flag} {
			if other, dup := seen[name]; dup {
				t.Errorf("%s and %s are both called %s", k.Path, other, name)
			}
			seen[name] = k.Path
		}
		if !envName.MatchString(k.Env) {
			t.Errorf("%s: got variable %q, want words of letters", k.Path, k.Env)
		}
		if serviceLink.MatchString(k.Env) {
			t.Errorf("%s: Kubernetes may set %s for a Service", k.Path, k.Env)
		}
		if k.Help == "" {
			t.Errorf("%s has no help text", k.Path)
		}
	}
}

func TestEveryKeyHasAFlagThatShowsItsDefault(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	RegisterFlags(fs)
	for _, k := range Keys() {
		f := fs.Lookup(k.Flag)
		if f == nil {
			t.Errorf("no flag --%s", k.Flag)
			continue
		}
		if f.Value.String() != k.Default || f.Value.Type() != k.Kind || f.Usage != k.Help {
			t.Errorf("--%s: got %q, %s, %q, want %q, %s, %q", k.Flag, f.Value, f.Value.Type(), f.Usage, k.Default, k.Kind, k.Help)
		}
	}
}
