package strict_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/policy/strict"
)

type level string

func (l *level) UnmarshalText(text []byte) error {
	if s := string(text); s != "low" && s != "high" {
		return errors.New("must be low or high")
	}
	*l = level(text)
	return nil
}

type rule struct {
	Profile string   `yaml:"profile"`
	Ratio   *float64 `yaml:"ratio"`
}

type config struct {
	Name    string            `yaml:"name,omitempty"`
	Port    uint16            `yaml:"port"`
	Offset  int               `yaml:"offset"`
	Small   int8              `yaml:"small"`
	Debug   bool              `yaml:"debug"`
	Wait    time.Duration     `yaml:"wait"`
	Level   level             `yaml:"level"`
	Share   float64           `yaml:"share"`
	Token   string            `yaml:"token" strict:"secret"`
	Labels  map[string]string `yaml:"labels"`
	Tenants map[string]tenant `yaml:"tenants"`
	Limits  *limits           `yaml:"limits"`
	Hidden  string            `yaml:"-"`
	Listen  string
}

type tenant struct {
	Rules []rule `yaml:"rules"`
}

type limits struct {
	Pages int `yaml:"pages"`
}

func TestDecodeReadsEveryKind(t *testing.T) {
	const in = `
name: sidecar
port: 8080
offset: -3
debug: true
wait: 1m30s
level: high
share: 1
token: hunter2
labels: { a.b: "1", c: two }
tenants:
  acme:
    rules:
      - { profile: fast, ratio: 0.5 }
      - profile: slow
limits: { pages: 7 }
listen: ":0"
`
	half := 0.5
	want := config{
		Name: "sidecar", Port: 8080, Offset: -3, Debug: true, Wait: 90 * time.Second, Level: "high", Share: 1, Token: "hunter2",
		Labels:  map[string]string{"a.b": "1", "c": "two"},
		Tenants: map[string]tenant{"acme": {Rules: []rule{{Profile: "fast", Ratio: &half}, {Profile: "slow"}}}},
		Limits:  &limits{Pages: 7}, Listen: ":0", Small: 5,
	}
	got := config{Small: 5, Name: "default"} // kept where the document is silent
	doc, err := strict.Decode("c.yaml", []byte(in), &got)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for path, line := range map[string]int{
		"name": 2, `labels["a.b"]`: 10, "tenants.acme.rules[1]": 15, "tenants.acme.rules[0].ratio": 14,
		"tenants.acme.rules[1].ratio": 15, // not written: the line of what holds it
		"nowhere":                     2,
	} {
		if got := doc.Line(path); got != line {
			t.Errorf("line of %s: got %d, want %d", path, got, line)
		}
	}
	if doc.Has("small") || !doc.Has("limits.pages") {
		t.Errorf("got Has(small)=%v Has(limits.pages)=%v, want false, true", doc.Has("small"), doc.Has("limits.pages"))
	}
	if got, want := doc.Errorf("limits.pages", "must be odd, got %d", 8).Error(), "c.yaml:16:11: limits.pages: must be odd, got 8"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecodeNamesEveryProblem(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"empty file":            {"", "c.yaml:1: file is empty"},
		"only comments":         {"# nothing\n", "c.yaml:1: file is empty"},
		"only a marker":         {"---\n", "c.yaml:1: file is empty"},
		"null document":         {"null\n", "c.yaml:1: file is empty"},
		"list at the top":       {"- a\n", "c.yaml:1:1: must be a mapping, got a list"},
		"text at the top":       {"hello\n", "c.yaml:1:1: must be a mapping, got hello"},
		"second document":       {"name: a\n---\nname: b\n", "c.yaml:2: file must hold one document, got a second one"},
		"tabs":                  {"limits:\n\tpages: 1\nlabels:\n\ta: b\n", "c.yaml:2: indentation must be spaces, got a tab\nc.yaml:4: indentation must be spaces, got a tab"},
		"broken YAML":           {"name: [a\n", "c.yaml:1: is not valid YAML: did not find expected ',' or ']'"},
		"unknown anchor":        {"name: *x\n", "c.yaml: is not valid YAML: unknown anchor 'x' referenced"},
		"unknown key":           {"naem: a\n", `c.yaml:1:1: naem: unknown key, did you mean "name"?`},
		"unknown, nothing near": {"limits:\n  bananas: 1\n", "c.yaml:2:3: limits.bananas: unknown key, known are pages"},
		"hidden field":          {"limits: {pages: 1}\nhidden: a\n", "c.yaml:2:1: hidden: unknown key, known are debug, labels, level, limits, listen, name, offset, port, share, small, tenants, token, wait"},
		"case differs":          {"Name: a\n", `c.yaml:1:1: Name: unknown key, did you mean "name"?`},
		"duplicate key":         {"name: a\nport: 1\nname: b\n", "c.yaml:3:1: name: key is set twice, first on line 1"},
		"duplicate map key":     {"labels:\n  a: b\n  a: c\n", "c.yaml:3:3: labels.a: key is set twice, first on line 2"},
		"key is a list":         {"? [a]\n: b\n", "c.yaml:1:3: key must be a name, got a list"},
		"key is null":           {"~: b\n", "c.yaml:1:1: key must be a name, got nothing"},
		"merge key":             {"labels: &l {a: b}\ntenants:\n  acme:\n    <<: *l\n", `c.yaml:4:5: tenants.acme.<<: merge keys are not supported; write the keys out`},
		"no value":              {"limits:\nname: a\n", "c.yaml:1:1: limits: has no value; give it one or remove the key"},
		"number for text":       {"name: 12\n", "c.yaml:1:1: name: must be text (put it in quotes), got 12"},
		"list for text":         {"name: [a]\n", "c.yaml:1:1: name: must be text, got a list"},
		"text for bool":         {"debug: yes\n", "c.yaml:1:1: debug: must be true or false, got yes"},
		"fraction for int":      {"offset: 1.5\n", "c.yaml:1:1: offset: must be a whole number, got 1.5"},
		"text for int":          {"offset: \"3\"\n", "c.yaml:1:1: offset: must be a whole number, got 3"},
		"int too wide":          {"small: 300\n", "c.yaml:1:1: small: must be a whole number in [-128,127], got 300"},
		"negative port":         {"port: -1\n", "c.yaml:1:1: port: must be a whole number in [0,65535], got -1"},
		"text for float":        {"share: lots of it\n", `c.yaml:1:1: share: must be a finite number, got "lots of it"`},
		"NaN":                   {"share: .nan\n", "c.yaml:1:1: share: must be a finite number, got .nan"},
		"infinity":              {"share: .inf\n", "c.yaml:1:1: share: must be a finite number, got .inf"},
		"overflowing float":     {"share: 1e999\n", "c.yaml:1:1: share: must be a finite number, got 1e999"},
		"duration":              {"wait: 5\n", "c.yaml:1:1: wait: must be a duration such as 1m30s, got 5"},
		"custom text":           {"level: middle\n", "c.yaml:1:1: level: must be low or high, got middle"},
		"mapping for text type": {"level: {a: b}\n", "c.yaml:1:1: level: must be a single value, got a mapping"},
		"mapping for list":      {"tenants:\n  acme:\n    rules: {profile: a}\n", "c.yaml:3:5: tenants.acme.rules: must be a list, got a mapping"},
		"secrets are not shown": {"token: [hunter2]\n", "c.yaml:1:1: token: must be text, got a list"},
		"secret scalar":         {"token: 12345\n", "c.yaml:1:1: token: must be text (put it in quotes), got a value that is not shown"},
		"long values are cut":   {"offset: " + strings.Repeat("x", 500) + "\n", "c.yaml:1:1: offset: must be a whole number, got " + strings.Repeat("x", 80) + "..."},
		"all at once": {
			"naem: a\nport: x\ntenants:\n  acme:\n    rules:\n      - {profile: a}\n      - {profile: 1, ratio: many}\n",
			"c.yaml:1:1: naem: unknown key, did you mean \"name\"?\nc.yaml:2:1: port: must be a whole number in [0,65535], got x\n" +
				"c.yaml:7:10: tenants.acme.rules[1].profile: must be text (put it in quotes), got 1\nc.yaml:7:22: tenants.acme.rules[1].ratio: must be a finite number, got many",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var c config
			_, err := strict.Decode("c.yaml", []byte(tt.in), &c)
			if err == nil {
				t.Fatalf("got no error, want %q", tt.want)
			}
			if err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%v", err, tt.want)
			}
		})
	}
}

func TestDecodeFollowsAliasesWithinBounds(t *testing.T) {
	var c config
	if _, err := strict.Decode("c.yaml", []byte("tenants:\n  a: &a { rules: [ { profile: x } ] }\n  b: *a\n"), &c); err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	if got, want := c.Tenants["b"].Rules[0].Profile, "x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	var nested struct {
		A [][][][][][]int `yaml:"a"`
	}
	bomb := "a: [&e [&d [&c [&b [&f [1,1,1,1,1,1,1,1,1,1]" + strings.Repeat(",*f", 50) + "]" + strings.Repeat(",*b", 50) + "]" +
		strings.Repeat(",*c", 50) + "]" + strings.Repeat(",*d", 50) + "]" + strings.Repeat(",*e", 50) + "]\n"
	_, err := strict.Decode("bomb.yaml", []byte(bomb), &nested)
	if want := "bomb.yaml:1:"; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "at most 100000 values once its aliases are followed") {
		t.Errorf("got %v, want the limit on values", err)
	}

	type loop struct {
		Next *loop `yaml:"next"`
	}
	var l loop
	_, err = strict.Decode("loop.yaml", []byte("next: &a\n  next: *a\n"), &l)
	if err == nil || !strings.Contains(err.Error(), "must be nested at most 64 deep; does an alias contain itself?") {
		t.Errorf("got %v, want the limit on depth", err)
	}
}

func TestDecodeIsBounded(t *testing.T) {
	var c config
	_, err := strict.Decode("big.yaml", make([]byte, strict.MaxBytes+1), &c)
	if want := "big.yaml: file must have at most 1048576 bytes, got 1048577"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "key%d: 1\n", i)
	}
	_, err = strict.Decode("many.yaml", []byte(many.String()), &c)
	if got, want := len(strict.Problems(err)), strict.MaxProblems+1; got != want {
		t.Errorf("got %d problems, want %d", got, want)
	}
}

func TestDecodeRefusesTargetsItCannotFill(t *testing.T) {
	for name, out := range map[string]any{
		"nil": nil, "struct by value": config{}, "pointer to map": &map[string]int{}, "nil pointer": (*config)(nil),
	} {
		if _, err := strict.Decode("c.yaml", []byte("name: a\n"), out); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	var odd struct {
		F func() `yaml:"f"`
	}
	_, err := strict.Decode("c.yaml", []byte("f: 1\n"), &odd)
	if want := "c.yaml:1:1: f: cannot be read: the program declares a func()"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestProblemsLookThroughWrapping(t *testing.T) {
	a, b := &strict.Error{File: "a", Problem: "x"}, &strict.Error{File: "b", Line: 2, Problem: "y"}
	err := fmt.Errorf("load: %w", errors.Join(strict.Join([]*strict.Error{b}), fmt.Errorf("wrapped: %w", a)))
	if got := strict.Problems(err); len(got) != 2 || got[0] != b || got[1] != a {
		t.Errorf("got %v, want [%v %v]", got, b, a)
	}
	if got := strict.Join(nil); got != nil {
		t.Errorf("got %v, want nil", got)
	}
	if got, want := a.Code(), "config.invalid"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"rules", "limits", "onViolation"}
	for name, want := range map[string]string{
		"rulse": `did you mean "rules"?`, "limit": `did you mean "limits"?`, "on_violation": `did you mean "onViolation"?`,
		"zzz": "known are limits, onViolation, rules",
	} {
		if got := strict.Suggest(name, known); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := strict.Suggest("a", nil); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"name: a\n", "tenants: {a: {rules: [{profile: x}]}}", "a: &a [*a]", "\t", "? a", "limits: !!binary x", "{[}", "<<: {name: a}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		doc, err := strict.Decode("f.yaml", data, &c)
		if doc == nil {
			t.Fatal("got no Doc")
		}
		for _, p := range strict.Problems(err) {
			if p.Problem == "" || p.File != "f.yaml" || p.Line < 0 || strings.Contains(p.Error(), "\n") {
				t.Errorf("got a malformed problem: %+v", p)
			}
		}
	})
}
