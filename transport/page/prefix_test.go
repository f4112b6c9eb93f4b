package page

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strings"
	"testing"
)

// The links as docs/reference/page-plane.md defines them, worked out by hand and not by this package.
func TestLinksAreWhatTheManualSays(t *testing.T) {
	u64 := func(n byte) string { return string([]byte{n, 0, 0, 0, 0, 0, 0, 0}) }
	root := sha256.Sum256([]byte(u64(18) + "semproxy.prefix.v1" + u64(2) + u64(3) + "abc"))
	one := sha256.Sum256(append(root[:], 7, 0, 0, 0, 255, 255, 255, 127))
	if got := RootLink(2, "abc"); got != root {
		t.Errorf("RootLink: got %v, want %x", got, root)
	}
	ids := IntsOf([]int32{7, math.MaxInt32})
	if got := RootLink(2, "abc").Next(2, ids.At); got != one {
		t.Errorf("Next: got %v, want %x", got, one)
	}
	if got, want := RootLink(2, "abc").String(), hex.EncodeToString(root[:]); got != want {
		t.Errorf("String: got %s, want %s", got, want)
	}
}

func prefixPage(first, tokens int, extra map[string]string) *Page {
	p := &Page{TokenFirst: first, Tokens: tokens, Extra: extra}
	ids := make([]int32, tokens)
	for i := range ids {
		ids[i] = int32(first + i)
	}
	p.TokenIDs = IntsOf(ids)
	return p
}

// However a sequence is cut into pages, the links at the same token are the same.
func TestPagesOfOneSequenceAreAChain(t *testing.T) {
	whole, ok, err := prefixPage(0, 96, nil).Span()
	if !ok || err != nil {
		t.Fatalf("Span: got %v, %v, want one", ok, err)
	}
	at := whole.From
	for _, cut := range [][2]int{{0, 16}, {16, 64}, {80, 16}} {
		s, ok, err := prefixPage(cut[0], cut[1], map[string]string{MetaPrefix: at.String()}).Span()
		if !ok || err != nil || s.From != at {
			t.Fatalf("Span of tokens %d to %d: got %v, %v", cut[0], cut[0]+cut[1], ok, err)
		}
		at = s.To
	}
	if at != whole.To {
		t.Errorf("end of the last page: got %v, want %v", at, whole.To)
	}
	for name, other := range map[string]map[string]string{"another salt": {MetaPrefixSalt: "lora-7"}, "other blocks": {MetaPrefixBlock: "32"}} {
		if s, ok, err := prefixPage(0, 96, other).Span(); !ok || err != nil || s.From == whole.From || s.To == whole.To {
			t.Errorf("%s: got the same links, want others", name)
		}
	}
}

func TestSpanOfWhatCannotBeShared(t *testing.T) {
	link := RootLink(16, "").String()
	for _, c := range []struct {
		name          string
		first, tokens int
		extra         map[string]string
		wrong         bool
	}{
		{"tokens that do not end at a block", 0, 17, nil, false},
		{"tokens that do not begin at a block", 8, 16, map[string]string{MetaPrefix: link}, false},
		{"no word of what is before", 16, 16, nil, false},
		{"a link that is too short", 16, 16, map[string]string{MetaPrefix: link[:62]}, true},
		{"a link in upper case", 16, 16, map[string]string{MetaPrefix: strings.ToUpper(link)}, true},
		{"a link that is no number", 16, 16, map[string]string{MetaPrefix: strings.Repeat("x", 64)}, true},
		{"another start than the start", 0, 16, map[string]string{MetaPrefix: strings.Repeat("0", 64)}, true},
		{"no block", 0, 16, map[string]string{MetaPrefixBlock: "0"}, true},
		{"a block of letters", 0, 16, map[string]string{MetaPrefixBlock: "x"}, true},
		{"a block that is too long", 0, 16, map[string]string{MetaPrefixBlock: "4097"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, ok, err := prefixPage(c.first, c.tokens, c.extra).Span()
			if ok || c.wrong != (err != nil) {
				t.Errorf("Span: got %v, %v, want none, an error %v", ok, err, c.wrong)
			}
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Code() != CodeBadPrefix) {
				t.Errorf("error: got %v, want code %s", err, CodeBadPrefix)
			}
		})
	}
}

const goodRequest = `{"model": "m", "layout": "l", "dtype": "BF16", "rope": {"type": "default", "theta": 10000, "rotary_dim": 8, "interleaved": false},
	"layers": 2, "kv_heads": 2, "head_dim": 8, "token_ids": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}`

func TestAPrefixRequestIsOfTheSpaceOfItsPages(t *testing.T) {
	r, err := DecodePrefixRequest([]byte(goodRequest), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	p := &Page{Model: "m", Layout: "l", DType: BF16, KVHeads: 2, HeadDim: 8, Rope: Rope{Type: "default", Theta: 10000, RotaryDim: 8}}
	if r.Space() != p.Space() {
		t.Error("space: got another one than that of the page")
	}
	if got := len(linksOf(r)); got != 2 || r.TokensTotal != 17 || r.Block != 16 {
		t.Errorf("links %d, tokens %d, block %d, want 2, 17, 16", got, r.TokensTotal, r.Block)
	}
	for name, change := range map[string]func(*Page){
		"model": func(p *Page) { p.Model = "n" }, "layout": func(p *Page) { p.Layout = "k" }, "dtype": func(p *Page) { p.DType = F16 },
		"rope": func(p *Page) { p.Rope.Theta = 1 }, "heads": func(p *Page) { p.KVHeads = 1 }, "dim": func(p *Page) { p.HeadDim = 4 },
	} {
		other := *p
		change(&other)
		if other.Space() == r.Space() {
			t.Errorf("a page of another %s: got the same space, want another", name)
		}
	}
}

func TestABadPrefixRequestIsRefused(t *testing.T) {
	for name, edit := range map[string][2]string{
		"no JSON":            {`{"model"`, `{model`},
		"an unknown field":   {`"layers"`, `"leyers": 1, "layers"`},
		"something behind":   {`17]}`, `17]} {}`},
		"no model":           {`"m"`, `""`},
		"a long layout":      {`"l"`, `"` + strings.Repeat("l", 300) + `"`},
		"no layers":          {`"layers": 2`, `"layers": 0`},
		"too many layers":    {`"layers": 2`, `"layers": 9999`},
		"no tokens":          {`[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]`, `[]`},
		"a negative token":   {`[1,`, `[-1,`},
		"a token too large":  {`[1,`, `[2147483648,`},
		"a token of text":    {`[1,`, `["1",`},
		"fewer in all":       {`"layers"`, `"tokens_total": 16, "layers"`},
		"a negative block":   {`"layers"`, `"prefix_block": -1, "layers"`},
		"an unknown dtype":   {`BF16`, `I4`},
		"an unknown rope":    {`"default"`, `"spiral"`},
		"no rope":            {`{"type": "default", "theta": 10000, "rotary_dim": 8, "interleaved": false}`, `null`},
		"a rope that is odd": {`"rotary_dim": 8`, `"rotary_dim": 7`},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(goodRequest, edit[0], edit[1], 1)
			if body == goodRequest {
				t.Fatalf("%q is not in the request", edit[0])
			}
			var e *Error
			if _, err := DecodePrefixRequest([]byte(body), Limits{}); !errors.As(err, &e) || !strings.HasPrefix(e.Code(), "page.bad_") {
				t.Errorf("got %v, want a coded error", err)
			}
		})
	}
}

// Whatever is sent, there is an answer or an error, and what is accepted says the same when it is written again.
func FuzzPrefixRequest(f *testing.F) {
	f.Add([]byte(goodRequest))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := DecodePrefixRequest(body, Limits{MaxTokens: 1 << 12})
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := DecodePrefixRequest(again, Limits{MaxTokens: 1 << 12})
		if err != nil {
			t.Fatalf("written again: got %v, want nil\n%s", err, again)
		}
		if fmt.Sprint(linksOf(r), r.Space()) != fmt.Sprint(linksOf(s), s.Space()) {
			t.Errorf("written again: got other links or another space")
		}
	})
}

// The manual's Python gives the links that this package gives.
func TestLinksInPythonAreTheSame(t *testing.T) {
	python := needPython(t)
	_, example, ok := strings.Cut(readText(t, "../../docs/reference/page-plane.md"), "```python\nimport hashlib")
	example, _, ends := strings.Cut(example, "```")
	if !ok || !ends {
		t.Fatal("docs/reference/page-plane.md has no example of links")
	}
	script := "import hashlib" + example + "\nprint(*links(list(range(100, 140)), 16, 'é'))\n"
	out, err := exec.Command(python, "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	at := RootLink(16, "é")
	want := []string{at.String()}
	for i := range 2 {
		at = at.Next(16, func(k int) int64 { return int64(100 + 16*i + k) })
		want = append(want, at.String())
	}
	if got := strings.Fields(string(out)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("links: got %v, want %v", got, want)
	}
}

// linksOf are all links of a request.
func linksOf(r *PrefixRequest) (all []Link) {
	var last Link
	for i := range r.Places() {
		last = r.Link(i, last)
		all = append(all, last)
	}
	return all
}
