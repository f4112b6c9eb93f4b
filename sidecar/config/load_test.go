package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "semproxy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	RegisterFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

// sample is the n-th value for a key, as it is written in a file, a variable or a flag. Values of neighbouring n differ and
// none is the default; of true and false, those with an even n are not.
func sample(k Key, n int) string {
	switch k.Kind {
	case "size":
		return fmt.Sprintf("%dKiB", 101+n)
	case "duration":
		return fmt.Sprintf("%dm", 7+n)
	case "number":
		return fmt.Sprint(41 + n)
	case "true|false":
		if (k.Default == "true") == (n%2 == 0) {
			return "false"
		}
		return "true"
	case "texts":
		return fmt.Sprintf("[text%d]", n)
	case "list":
		return fmt.Sprintf("[{match: m%d, layout: l}]", n)
	default:
		return fmt.Sprintf("text%d", n)
	}
}

// asFile writes value at a path such as a.b.c as nested YAML.
func asFile(path, value string) string {
	var b strings.Builder
	steps := strings.Split(path, ".")
	for i, step := range steps {
		fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), step)
		if i < len(steps)-1 {
			b.WriteString("\n")
		}
	}
	return b.String() + " " + value + "\n"
}

// For each key, each source wins over those before it and leaves every other key alone.
func TestFlagsWinOverVariablesOverTheFileOverDefaultsForEveryKey(t *testing.T) {
	for _, k := range Keys() {
		t.Run(k.Path, func(t *testing.T) {
			text := asFile(k.Path, sample(k, 0))
			file := write(t, text)
			fileLine := fmt.Sprintf("%s:%d", file, strings.Count(text, "\n"))
			env := []string{k.Env + "=" + sample(k, 1)}
			arg := "--" + k.Flag + "=" + sample(k, 2)
			steps := []struct {
				name    string
				sources Sources
				n       int
				origin  string
			}{
				{"file", Sources{Flags: flags(t, "--config", file)}, 0, fileLine},
				{"variable over file", Sources{Env: env, Flags: flags(t, "--config", file)}, 1, k.Env},
				{"flag over variable and file", Sources{Env: env, Flags: flags(t, "--config", file, arg)}, 2, "--" + k.Flag},
				{"flag over default", Sources{Flags: flags(t, arg)}, 2, "--" + k.Flag},
				{"variable over default", Sources{Env: env}, 1, k.Env},
			}
			for _, step := range steps {
				l, problems := merge(step.sources)
				if len(problems) > 0 {
					t.Fatalf("%s: %v", step.name, problems)
				}
				want := Default()
				if err := setText(k.field(&want), sample(k, step.n), "test", k.Path); err != nil {
					t.Fatal(err)
				}
				if k.Kind != "true|false" && reflect.DeepEqual(want, Default()) {
					t.Fatal("the sample is the default, so this test shows nothing")
				}
				if !reflect.DeepEqual(l.Config, want) {
					t.Errorf("%s: got %+v, want %+v", step.name, l.Config, want)
				}
				for _, other := range Keys() {
					wantOrigin := "default"
					if other.Path == k.Path {
						wantOrigin = step.origin
					}
					if got := l.Origin(other.Path); got != wantOrigin {
						t.Errorf("%s: Origin(%s) = %s, want %s", step.name, other.Path, got, wantOrigin)
					}
				}
			}
		})
	}
}

func TestNothingToldGivesTheDefaults(t *testing.T) {
	l, err := Load(Sources{Env: []string{"HOME=/nowhere", "semproxy_x=1"}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l.Config, Default()) {
		t.Errorf("got %+v, want %+v", l.Config, Default())
	}
	if l.RequestWorkers() < 1 || l.PageWorkers() < 1 {
		t.Errorf("got %d and %d workers, want at least one", l.RequestWorkers(), l.PageWorkers())
	}
}

func TestTheFileIsNamedByFlagOrVariable(t *testing.T) {
	one, two := write(t, "drainTimeout: 1m\n"), write(t, "drainTimeout: 2m\n")
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"variable", []string{"SEMPROXY_CONFIG=" + one}, nil, "1m"},
		{"flag", nil, []string{"-c", two}, "2m"},
		{"flag over variable", []string{"SEMPROXY_CONFIG=" + one}, []string{"--config", two}, "2m"},
		{"none", nil, nil, "25s"},
	} {
		l, err := Load(Sources{Env: tt.env, Flags: flags(t, tt.args...)})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := l.DrainTimeout.String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestBothNamesOfThePolicysPathAreOne(t *testing.T) {
	for want, env := range map[string][]string{"old.yaml": {"SEMPROXY_POLICY=old.yaml"}, "new.yaml": {"SEMPROXY_POLICY=old.yaml", "SEMPROXY_POLICY_PATH=new.yaml"}} {
		if l, err := Load(Sources{Env: env}); err != nil || l.Policy.Path != want {
			t.Errorf("%v: got %v, %v, want %s", env, l, err, want)
		}
	}
}

func TestUnknownVariablesAreErrorsButNotThoseOfOthers(t *testing.T) {
	for _, tt := range []struct{ env, want string }{
		{"SEMPROXY_ADMIN_LISTEM=x", `SEMPROXY_ADMIN_LISTEM: unknown environment variable, did you mean "SEMPROXY_ADMIN_LISTEN"?`},
		{"SEMPROXY_MAXPAYLOAD=1", `SEMPROXY_MAXPAYLOAD: unknown environment variable`},
		{"SEMPROXY_=x", `SEMPROXY_: unknown environment variable`},
		{"SEMPROXY_TEST_REQUIRE=nats", ""},
		{"SEMPROXY_PYTHON=python3", ""},
		{"SEMPROXY_LIBCUDA=libcuda.so.1", ""},
		{"SEMPROXYX=1", ""},
		// What Kubernetes sets for Services named semproxy and semproxy-admin.
		{"SEMPROXY_SERVICE_HOST=10.0.0.1", ""},
		{"SEMPROXY_SERVICE_PORT_METRICS=9090", ""},
		{"SEMPROXY_PORT=tcp://10.0.0.1:9090", ""},
		{"SEMPROXY_PORT_9090_TCP_ADDR=10.0.0.1", ""},
		{"SEMPROXY_ADMIN_PORT_9090_TCP=tcp://10.0.0.1:9090", ""},
	} {
		_, err := Load(Sources{Env: []string{tt.env}})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", tt.env, err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %s", tt.env, err, tt.want)
		}
	}
}

// A key that is gone says what became of it, wherever it is still set, beside all other problems.
func TestRemovedKeysSayWhatHoldsInTheirPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "old.yaml")
	if err := os.WriteFile(file, []byte("jobs:\n  deadBytes: 64MiB\n  maxDeliverys: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Sources{Env: []string{"SEMPROXY_PROXY_GATE_KV_INTERVAL=1s"}, Flags: flags(t, "--config", file, "--store-redis-checksum", "sha256")})
	for _, want := range []string{
		file + ":2:3: jobs.deadBytes: was removed in 0.1: it is a quarter of jobs.maxBytes, and 1MiB at least; delete it",
		file + ":3:3: jobs.maxDeliverys: unknown key",
		"SEMPROXY_PROXY_GATE_KV_INTERVAL: proxy.gate.kvInterval: was removed in 0.1: it is 2s; delete it",
		"--store-redis-checksum: store.redis.checksum: was removed in 0.1: it is crc32c,",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, k := range Keys() {
		for _, r := range removed {
			if k.Path == r.path {
				t.Errorf("%s is a key, and was removed", k.Path)
			}
		}
	}
}

// configs/semproxy.yaml is what a person copies: it names every key, with the default.
func TestTheAnnotatedFileIsTheDefaults(t *testing.T) {
	path := filepath.Join("..", "..", "configs", "semproxy.yaml")
	l, err := Load(Sources{Flags: flags(t, "--config", path)})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l.Config, Default()) {
		t.Errorf("got %+v, want %+v", l.Config, Default())
	}
	for _, k := range Keys() {
		if got := l.Origin(k.Path); !strings.HasPrefix(got, path+":") {
			t.Errorf("%s: got origin %s, want a line of the file", k.Path, got)
		}
	}
}
