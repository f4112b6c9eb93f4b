package policy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

// Whatever the bytes, Compile returns either problems that name the file or a policy that decides.
func FuzzCompile(f *testing.F) {
	f.Add(policies.Example)
	f.Add(policies.Demo)
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := policy.Compile(policy.Source{Name: "f.yaml", Data: data})
		if err != nil {
			problems := strict.Problems(err)
			if len(problems) == 0 {
				t.Fatalf("got %v, want problems", err)
			}
			for _, p := range problems {
				if p.File != "f.yaml" {
					t.Errorf("got a problem without its file: %v", p)
				}
			}
			return
		}
		for _, tenant := range append(set.Tenants(), "unheard-of") {
			d, err := set.Decide(policy.Request{Tenant: tenant, Model: "llama-3-8b", Tokens: 1000})
			if err != nil {
				continue // denied
			}
			if p := d.Plan; !(p.Ratio > 0 && p.Ratio <= 1) || !(p.Exact >= 0 && p.Exact < 1) || p.Chunk.Min > p.Chunk.Max ||
				p.Method == policy.MethodWindow && p.Protect.Sinks < 1 || p.Regular && p.Budget != policy.BudgetEqual {
				t.Errorf("got an impossible plan %+v", p)
			}
			steps := set.Explain(policy.Request{Tenant: tenant, Model: "llama-3-8b", Tokens: 1000})
			if last := steps[len(steps)-1]; last.Rule != d.Rule {
				t.Errorf("got %s explained as %s", d.Rule, last.Rule)
			}
		}
	})
}
