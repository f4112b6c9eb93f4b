package pipeline_test

import (
	"context"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/transport/page"
)

const lookupRules = `
apiVersion: semproxy.io/v1
profiles:
  mild: { method: weighted, ratio: 0.5 }
  quarter: { method: weighted, ratio: 0.25 }
tenants:
  hdr:   { rules: [ { match: { headers: { X-Tier: gold } }, profile: mild }, { profile: quarter } ] }
  only:  { rules: [ { match: { headers: { X-Tier: gold } }, profile: mild } ] }
  min:   { rules: [ { match: { minTokens: 161 }, profile: quarter }, { profile: mild } ] }
  max:   { rules: [ { match: { maxTokens: 160 }, profile: mild }, { profile: quarter } ] }
  steps: { rules: [ { match: { maxTokens: 160 }, profile: mild }, { match: { minTokens: 193 }, profile: quarter }, { match: { minTokens: 161 }, profile: exact } ] }
  both:  { rules: [ { match: { minTokens: 161, headers: { X-Tier: gold } }, profile: quarter }, { match: { headers: { X-Tier: gold } }, profile: mild } ] }
  ends:  { rules: [ { match: { minTokens: 161 }, profile: exact }, { profile: mild } ] }
`

// lookupRig knows the headers of requests by their names.
func lookupRig(t *testing.T, headers map[string]map[string]string) *rig {
	return newRigOf(t, lookupRules, func(c *pipeline.Config) {
		m, err := store.NewMarks(c.Store.(store.Store), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		c.Prefixes = m
		c.Headers = func(_, sequence string) map[string]string { return headers[sequence] }
	})
}

func longer(ids []int32, n int) []int32 {
	out := slices.Clone(ids)
	for i := range n {
		out = append(out, 9000+int32(i))
	}
	return out
}

// What a conversation stored when it was shorter, or longer, is found at every length at which the policy compresses.
func TestAPrefixIsFoundAcrossRulesByLength(t *testing.T) {
	ids := sequence(1)
	for _, tenant := range []string{"min", "max", "steps"} {
		r := lookupRig(t, nil)
		send(t, r, tenant, piece(t, ids, 0, 64, 0, 4, nil)) // 160 tokens
		for name, c := range map[string]struct{ add, want int }{"the same": {0, 64}, "three more": {3, 64}, "far more": {100, 64}} {
			if tenant == "steps" && c.add == 3 {
				c.want = 0 // the policy leaves a request of 163 tokens exact
			}
			if got := ask(t, r, tenant, longer(ids, c.add), 4, ""); got.Tokens != c.want {
				t.Errorf("%s: %s: got %d tokens, want %d", tenant, name, got.Tokens, c.want)
			}
		}
		// The turns that follow were stored under other rules; the whole chain is found.
		long := longer(ids, 40)
		send(t, r, tenant, piece(t, long[:192], 64, 128, 0, 4, nil)) // exact for steps
		send(t, r, tenant, piece(t, long, 64, 64, 0, 4, nil))
		send(t, r, tenant, piece(t, long, 128, 64, 0, 4, nil))
		if got := ask(t, r, tenant, long, 4, ""); got.Tokens != 192 {
			t.Errorf("%s: the chain over a rule's length: got %d tokens, want 192", tenant, got.Tokens)
		}
		if got := ask(t, r, tenant, ids, 4, ""); got.Tokens != 128 {
			t.Errorf("%s: a shorter request: got %d tokens, want 128", tenant, got.Tokens)
		}
	}
}

// A place that the preferred policy's marks go on from may be reached by another policy's alone.
func TestAChainChangesItsPolicyMoreThanOnce(t *testing.T) {
	r := lookupRig(t, nil)
	ids := longer(sequence(1), 40)
	for i, total := range []int{160, 160, 200, 160, 200} {
		send(t, r, "min", piece(t, ids[:total], 32*i, 32, 0, 4, nil))
	}
	if got := ask(t, r, "min", ids, 4, ""); got.Tokens != 160 || len(got.Pages) != 5 {
		t.Errorf("got %d tokens in %d pages, want 160 in 5", got.Tokens, len(got.Pages))
	}
}

// A request's own rule is preferred where several have stored the same tokens, and a policy that leaves a request exact
// gives it nothing.
func TestTheRequestsOwnRuleIsPreferred(t *testing.T) {
	r := lookupRig(t, nil)
	ids := sequence(1)
	mild, _ := send(t, r, "min", piece(t, ids, 0, 64, 0, 4, nil))
	quarter, _ := send(t, r, "min", piece(t, longer(ids, 10), 0, 64, 0, 4, nil))
	if mild.PolicyDigest == quarter.PolicyDigest {
		t.Fatal("both by one policy, want two")
	}
	for add, want := range map[int]string{0: mild.Object, 5: quarter.Object} {
		if got := ask(t, r, "min", longer(ids, add), 4, ""); len(got.Pages) != 1 || got.Pages[0].Object != want {
			t.Errorf("%d more: got %+v, want object %s", add, got.Pages, want)
		}
	}
	send(t, r, "ends", piece(t, ids, 0, 64, 0, 4, nil))
	if got := ask(t, r, "ends", ids, 4, ""); got.Tokens != 64 {
		t.Errorf("below the rule: got %d tokens, want 64", got.Tokens)
	}
	if got := ask(t, r, "ends", longer(ids, 10), 4, ""); got.Tokens != 0 {
		t.Errorf("a request that the policy leaves exact: got %d tokens, want 0", got.Tokens)
	}
}

// The headers that chose a page's profile choose the lookup's: by the request's name, or because the adapter carries them.
func TestAPrefixIsFoundUnderHeaders(t *testing.T) {
	gold := map[string]string{"X-Tier": "gold"}
	r := lookupRig(t, map[string]map[string]string{"s": gold, "silver": {"X-Tier": "silver"}})
	ids := sequence(1)
	carried := `"layers" -> "headers":{"X-Tier":"gold"},"layers"`
	for _, tenant := range []string{"hdr", "only", "both"} {
		send(t, r, tenant, piece(t, ids, 0, 64, 0, 4, nil)) // of the sequence s, which is known
		for name, c := range map[string]struct {
			change string
			want   int
		}{
			"the same request":            {`"layers" -> "sequence":"s","layers"`, 64},
			"carried headers":             {carried, 64},
			"a request with other ones":   {`"layers" -> "sequence":"silver","layers"`, 0},
			"known ones before carried":   {`"layers" -> "sequence":"silver","headers":{"X-Tier":"gold"},"layers"`, 0},
			"a request that nobody knows": {`"layers" -> "sequence":"nobody","layers"`, 0},
			"no headers":                  {"", 0},
		} {
			if got := ask(t, r, tenant, ids, 4, c.change); got.Tokens != c.want {
				t.Errorf("%s: %s: got %d tokens, want %d", tenant, name, got.Tokens, c.want)
			}
			if got := ask(t, r, tenant, longer(ids, 9), 4, c.change); got.Tokens != c.want {
				t.Errorf("%s: %s, longer: got %d tokens, want %d", tenant, name, got.Tokens, c.want)
			}
		}
	}

	r = lookupRig(t, nil) // no state at all: the page itself carries what decides
	rep, _ := send(t, r, "hdr", piece(t, ids, 0, 64, 0, 4, map[string]string{page.MetaHeaders: `{"X-Tier":"gold"}`}))
	if rep.Policy != "mild" {
		t.Errorf("a page that carries its headers: got profile %s, want mild", rep.Policy)
	}
	if got := ask(t, r, "hdr", ids, 4, carried); got.Tokens != 64 {
		t.Errorf("carried at both: got %d tokens, want 64", got.Tokens)
	}
	for _, bad := range []string{"", "gold", `["gold"]`, `{"X-Tier":7}`} {
		_, err := r.Compress(context.Background(), "hdr", piece(t, ids, 0, 64, 0, 4, map[string]string{page.MetaHeaders: bad}))
		if got := pipeline.CodeOf(err); got != page.CodeBadMetadata {
			t.Errorf("headers %q: got %s, want %s", bad, got, page.CodeBadMetadata)
		}
	}
}
