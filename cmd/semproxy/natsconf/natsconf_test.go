package natsconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func good(t *testing.T) Options {
	return Options{
		Tenants: []string{"acme", "globex"}, Mode: Accounts, Dir: filepath.Join(t.TempDir(), "nats"), Nodes: []Node{{"localhost", 4222, 6222}},
		Bind: "127.0.0.1", MaxPayload: 8 << 20,
	}
}

func TestSeedsStayAndConfigurationsHoldNone(t *testing.T) {
	for _, mode := range []string{Accounts, Users} {
		o := good(t)
		o.Mode = mode
		first, err := Write(o)
		if err != nil {
			t.Fatal(err)
		}
		seed, err := os.ReadFile(first.Tenants[0])
		if err != nil || !strings.HasPrefix(string(seed), "SU") {
			t.Fatalf("seed of acme: got %d bytes, %v", len(seed), err)
		}
		for _, path := range append(first.Tenants, first.Sidecar) {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: got %v, %v, want mode 0600", path, info.Mode(), err)
			}
		}
		o.Tenants = append(o.Tenants, "initech")
		second, err := Write(o)
		if err != nil || second.Kept != 3 {
			t.Errorf("with one tenant more: kept %d seeds, %v, want 3", second.Kept, err)
		}
		if again, err := os.ReadFile(first.Tenants[0]); err != nil || string(again) != string(seed) {
			t.Errorf("the seed of acme has changed (%v)", err)
		}
		text, err := os.ReadFile(second.Configs[0])
		if err != nil || strings.Contains(string(text), strings.TrimSpace(string(seed))) || !strings.Contains(string(text), "initech") {
			t.Errorf("configuration: %v\n%s", err, text)
		}
		if err := os.WriteFile(first.Tenants[0], []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Write(o); err == nil || !strings.Contains(err.Error(), "acme.nk") || strings.Contains(err.Error(), "nonsense") {
			t.Errorf("a damaged seed: got %v, want the file's name", err)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no tenants":       {func(o *Options) { o.Tenants = nil }, "at least one"},
		"dotted tenant":    {func(o *Options) { o.Tenants = []string{"a.b"} }, "a.b"},
		"path as a tenant": {func(o *Options) { o.Tenants = []string{"../x"} }, "../x"},
		"twice":            {func(o *Options) { o.Tenants = []string{"a", "a"} }, "twice"},
		"the sidecars'":    {func(o *Options) { o.Tenants = []string{"SEMPROXY"} }, "SEMPROXY"},
		"mode":             {func(o *Options) { o.Mode = "both" }, "both"},
		"bind":             {func(o *Options) { o.Bind = "here" }, "here"},
		"payload":          {func(o *Options) { o.MaxPayload = 1 }, "max payload"},
		"key alone":        {func(o *Options) { o.TLSKey = "k" }, "TLS"},
		"two servers":      {func(o *Options) { o.Nodes = append(o.Nodes, Node{"b", 1, 2}) }, "three"},
	} {
		o := good(t)
		c.change(&o)
		if _, err := Write(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, c.want)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Errorf("%s: files were written", name)
		}
	}
	for text, ok := range map[string]bool{"a": true, "a:1": true, "a:1:2": true, "": false, ":1": false, "a:0": false, "a:70000": false, "a:1:2:3": false, "a:x": false} {
		if n, err := ParseNode(text); (err == nil) != ok || (ok && n.Host != "a") {
			t.Errorf("ParseNode(%q): got %+v, %v", text, n, err)
		}
	}
}
