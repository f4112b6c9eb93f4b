package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func printed(t *testing.T, l *Loaded) string {
	t.Helper()
	var out bytes.Buffer
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPrintNamesTheOriginOfEveryValue(t *testing.T) {
	file := write(t, "limits:\n  queue: 7\nmodels:\n  - { match: \"llama*\", layout: hf }\n")
	l, err := Load(Sources{Env: []string{"SEMPROXY_STORE_MAX_BYTES=1GiB"}, Flags: flags(t, "-c", file, "--drain-timeout=90s")})
	if err != nil {
		t.Fatal(err)
	}
	out := printed(t, l)
	for _, want := range []string{
		"  queue: 7 # " + file + ":2\n",
		"  maxBytes: 1GiB # SEMPROXY_STORE_MAX_BYTES\n",
		"drainTimeout: 1m30s # --drain-timeout\n",
		"    maxPayload: 8MiB # default\n",
		"models: # " + file + ":3\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q in:\n%s", want, out)
		}
	}
	comments := strings.Count(out, " # ")
	if want := len(Keys()); comments != want {
		t.Errorf("got %d origins, want %d:\n%s", comments, want, out)
	}
}

func TestWhatIsPrintedLoadsAgainToTheSame(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults":    nil,
		"text values": {`--policy-path=# a: "strange" path`, "--store-dir=true", "--models=[{match: '*', tokenizerFile: t.json}, {match: b, layout: '1'}]"},
	} {
		first, err := Load(Sources{Flags: flags(t, args...)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		second, err := Load(Sources{Flags: flags(t, "-c", write(t, printed(t, first)))})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, printed(t, first))
		}
		if !reflect.DeepEqual(first.Config, second.Config) {
			t.Errorf("%s: got %+v, want %+v", name, second.Config, first.Config)
		}
	}
}

func TestPrintRedactsWhoLogsIn(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"nats://host:4222", "nats://host:4222"},
		{"nats://user:hunter2@host:4222", "nats://redacted@host:4222"},
		{"nats://hunter2@host:4222", "nats://redacted@host:4222"}, // a token
		{"nats://a:4222, tls://u:hunter2@b:4222", "nats://a:4222,tls://redacted@b:4222"},
	} {
		l, err := Load(Sources{Env: []string{"SEMPROXY_NATS_URL=" + tt.url}})
		if err != nil {
			t.Fatal(err)
		}
		out := printed(t, l)
		if strings.Contains(out, "hunter2") || !strings.Contains(out, "url: "+tt.want+" # SEMPROXY_NATS_URL\n") {
			t.Errorf("%s: got\n%s\nwant %s", tt.url, out, tt.want)
		}
		if l.NATS.URL != tt.url {
			t.Errorf("got %s, want the value itself untouched", l.NATS.URL)
		}
	}
	if got := Redact("nats://u:hunter2@[broken"); got != "redacted" {
		t.Errorf("got %s, want nothing of a URL that cannot be read", got)
	}
}
