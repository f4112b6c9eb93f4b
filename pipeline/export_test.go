package pipeline

import (
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/transport/page"
)

// Afford is what a page of that size, and of no more bytes than its tensors have, is told under a profile of rules.
func Afford(s compress.Size, rules, profile string) error {
	set, err := policy.Compile(policy.Source{Name: "test.yaml", Data: []byte(rules)})
	if err != nil {
		return err
	}
	d, err := set.Decide(policy.Request{Tenant: profile})
	if err != nil {
		return err
	}
	j := &job{page: &page.Page{}, blob: make([]byte, 2*s.Layers*s.Heads*s.Tokens*s.Dim*s.Elem+2*s.Layers*s.QHeads*s.Queries*s.Dim)}
	return j.affordSize(s, &d.Plan)
}

// Terms is terms.
var Terms = terms
