package transport

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSubjectInvertsSubject(t *testing.T) {
	for _, tenant := range []string{"acme", "A-b_9", strings.Repeat("x", 64)} {
		for _, op := range shared {
			subject, err := Subject(tenant, op)
			if err != nil {
				t.Fatalf("Subject(%q, %q): %v", tenant, op, err)
			}
			gotTenant, gotOp, err := ParseSubject(subject)
			if err != nil || gotTenant != tenant || gotOp != op {
				t.Errorf("ParseSubject(%q): got %q %q %v, want %q %q", subject, gotTenant, gotOp, err, tenant, op)
			}
		}
	}
}

func TestSubjectIsRefused(t *testing.T) {
	for name, subject := range map[string]string{
		"empty":             "",
		"no tenant":         "kv..v1.compress",
		"wildcard tenant":   "kv.*.v1.compress",
		"tail wildcard":     "kv.>",
		"tenant too long":   "kv." + strings.Repeat("x", 65) + ".v1.get",
		"tenant with space": "kv.a b.v1.get",
		"tenant with dot":   "kv.a.b.v1.get",
		"not ASCII":         "kv.tenänt.v1.get",
		"other version":     "kv.acme.v2.get",
		"other root":        "KV.acme.v1.get",
		"unknown operation": "kv.acme.v1.drop",
		"one token more":    "kv.acme.v1.get.x",
		"client's subject":  "kv.v1.compress",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ParseSubject(subject)
			var c coded
			if !errors.As(err, &c) || c.Code() != CodeSubject {
				t.Errorf("got %v, want code %s", err, CodeSubject)
			}
		})
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, seed := range []string{"kv.acme.v1.compress", "kv.*.v1.get", "kv..v1.stat", "a.b.c.d.e", "kv.a.v1.get\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		tenant, op, err := ParseSubject(subject)
		if err != nil {
			return
		}
		again, err := Subject(tenant, op)
		if err != nil || again != subject {
			t.Errorf("Subject(ParseSubject(%q)): got %q %v", subject, again, err)
		}
	})
}
