package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

const patternRules = `
apiVersion: semproxy.io/v1
profiles:
  plain:    { method: semantic, ratio: 0.25, assign: true }
  bethel:   { method: semantic, ratio: 0.25, assign: true, protect: { patterns: [ Bethel, "the house of God" ] } }
  evicting: { method: keynorm, ratio: 0.25, assign: true, protect: { patterns: [ Bethel ] } }
tenants:
  plain:    { rules: [ { profile: plain } ] }
  bethel:   { rules: [ { profile: bethel } ] }
  evicting: { rules: [ { profile: evicting } ] }
`

func demoTokenizer(t *testing.T) *delimiter.Table {
	t.Helper()
	file, err := configs.Demo().Open("tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	table, err := delimiter.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// counted gives, for every token and head, the count of the core that it went to; 0 where it was dropped.
func counted(c *page.Cores) [][]int {
	all := make([][]int, c.Tokens)
	for plane := range c.Layers * c.KVHeads {
		h := c.Head(plane/c.KVHeads, plane%c.KVHeads)
		for i := range all {
			n := 0
			if core := int32(word(c.Assign, plane*c.Tokens+i)); core >= 0 {
				n = int(word(h.Counts, int(core)))
			}
			all[i] = append(all[i], n)
		}
	}
	return all
}

func TestPatternsProtectTheirTokens(t *testing.T) {
	table := demoTokenizer(t)
	r := newRigOf(t, patternRules, func(c *pipeline.Config) { c.Models = model{texts: table.Text} })
	found := 0
	for _, name := range configs.Pages() {
		blob := demoPage(t, name)
		in, err := page.Decode(blob, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		named, text := []int{}, "" // the tokens of Bethel, found by another way
		starts := make([]int, in.Tokens+1)
		for i := range in.Tokens {
			s, _ := table.Text(in.TokenIDs.At(i))
			text += s
			starts[i+1] = len(text)
		}
		for i := range in.Tokens {
			for at := max(starts[i]-len("Bethel")+1, 0); at < starts[i+1]; at++ {
				if strings.HasPrefix(text[at:], "Bethel") {
					named = append(named, i)
					break
				}
			}
		}
		if len(named) == 0 {
			continue
		}
		found++
		_, plain := send(t, r, "plain", blob)
		merged := 0
		for _, i := range named {
			if slices.Max(counted(plain)[i]) > 1 {
				merged++
			}
		}
		if merged == 0 {
			t.Errorf("%s: none of the %d tokens of Bethel is merged without the pattern: the test shows nothing", name, len(named))
		}
		for _, tenant := range []string{"bethel", "evicting"} {
			_, cores := send(t, r, tenant, blob)
			counts := counted(cores)
			for _, i := range named {
				if slices.Min(counts[i]) != 1 || slices.Max(counts[i]) != 1 {
					t.Errorf("%s, %s: token %d of Bethel: got counts %v, want 1 for every head", name, tenant, i, counts[i])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no page names Bethel: the test shows nothing")
	}
}

func TestMessagesOfTheRequestKeepTheirTokens(t *testing.T) {
	rules := "apiVersion: semproxy.io/v1\nprofiles:\n  half: { method: semantic, ratio: 0.25, assign: true }\n  roles: { method: semantic, ratio: 0.25, assign: true, protect: { roles: [system] } }\n" +
		"tenants:\n  plain: { rules: [ { profile: half } ] }\n  acme: { rules: [ { profile: roles } ] }\n"
	known := true
	r := newRigOf(t, rules, func(c *pipeline.Config) {
		c.Messages = func(tenant, sequence string) ([][2]int, bool) {
			if tenant != "acme" || sequence == "" {
				t.Errorf("asked for %q, %q, want the page's own, and only where the policy protects messages", tenant, sequence)
			}
			return [][2]int{{20, 120}, {200, 210}}, known
		}
	})
	blob := demoPage(t, configs.Pages()[0])
	merged := func(counts [][]int) (inside int) {
		for i := range counts {
			if (i >= 20 && i < 120 || i >= 200 && i < 210) && slices.Max(counts[i]) > 1 {
				inside++
			}
		}
		return inside
	}
	_, plain := send(t, r, "plain", blob)
	_, kept := send(t, r, "acme", blob)
	known = false
	if a, b := merged(counted(plain)), merged(counted(kept)); a == 0 || b != 0 {
		t.Errorf("merged tokens of messages: got %d without a policy, %d with, want some, none", a, b)
	}
	out, unknown := send(t, r, "acme", blob)
	if out.Outcome != semconv.OutcomeExact || !strings.Contains(out.Reason, "not known") || unknown.Assign != nil && merged(counted(unknown)) != 0 {
		t.Errorf("where they are not known: got %s, %q, want the page exact, and why", out.Outcome, out.Reason)
	}
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	p.Protect = make([]byte, p.Tokens) // an adapter that knows them
	for i := 20; i < 120; i++ {
		p.Protect[i] = 1
	}
	marked, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, cores := send(t, r, "acme", marked)
	if counts := counted(cores); out.Outcome != semconv.OutcomeCompressed || merged(counts[:120]) != 0 {
		t.Errorf("where the page marks them: got %s with %d of them merged, want compressed, none", out.Outcome, merged(counts[:120]))
	}
}

func TestThePagesOwnProtectionStaysBesideThePatterns(t *testing.T) {
	table := demoTokenizer(t)
	r := newRigOf(t, patternRules, func(c *pipeline.Config) { c.Models = model{texts: table.Text} })
	p, _ := page.Decode(demoPage(t, "kjv"), page.DefaultLimits())
	p.Protect = make([]byte, p.Tokens)
	p.Protect[300], p.Protect[301] = 1, 255
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := bytes.Clone(p.Protect)
	_, cores := send(t, r, "bethel", blob)
	for _, i := range []int{300, 301} {
		if got := counted(cores)[i]; slices.Max(got) != 1 {
			t.Errorf("token %d: got counts %v, want 1", i, got)
		}
	}
	if again, _ := page.Decode(blob, page.DefaultLimits()); !bytes.Equal(again.Protect, own) {
		t.Error("the sender's blob was written to")
	}
}

func TestPatternsNeedATokenizer(t *testing.T) {
	broken := errors.New("the file is damaged")
	for name, c := range map[string]struct {
		models pipeline.Model
		code   string
	}{
		"no models at all":       {nil, "policy.no_tokenizer"},
		"no tokenizer":           {model{}, "policy.no_tokenizer"},
		"a tokenizer that fails": {model{err: broken}, "internal"},
	} {
		r := newRigOf(t, patternRules, func(cfg *pipeline.Config) { cfg.Models = c.models })
		_, err := r.Compress(context.Background(), "bethel", demoPage(t, "kjv"))
		if got := pipeline.CodeOf(err); err == nil || got != c.code {
			t.Errorf("%s: code %q (%v), want %q", name, got, err, c.code)
		}
		if c.code != "internal" && err != nil && !strings.Contains(err.Error(), "tokenizerFile") {
			t.Errorf("%s: %q names no remedy", name, err)
		}
		if c.code == "internal" && !errors.Is(err, broken) {
			t.Errorf("%s: got %v, want %v", name, err, broken)
		}
		send(t, r, "plain", demoPage(t, "kjv_facts")) // who protects no texts is not asked
	}
}

func TestAnotherTokenizerIsAnotherObject(t *testing.T) {
	table := demoTokenizer(t)
	text := table.Text
	r := newRigOf(t, patternRules, func(c *pipeline.Config) {
		c.Models = model{texts: func(id int64) (string, bool) { return text(id) }}
	})
	first, _ := send(t, r, "bethel", demoPage(t, "kjv_long"))
	text = func(int64) (string, bool) { return "Bethel", true }
	second, _ := send(t, r, "bethel", demoPage(t, "kjv_long"))
	if first.Object == second.Object || second.Ratio != 1 {
		t.Errorf("objects %.8s and %.8s, ratio %v; want two, and every token protected by the second", first.Object, second.Object, second.Ratio)
	}
}
