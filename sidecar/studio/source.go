package studio

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/transport/page"
)

// Source is a page that policies can be tried on.
type Source struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"` // demo, text or page
	Title  string `json:"title"`
	Model  string `json:"model"`
	Tenant string `json:"tenant,omitempty"`
	Layers int    `json:"layers"`
	Heads  int    `json:"heads"`
	QHeads int    `json:"queryHeads"` // 0: it brought no queries, so no attention error is measured
	Tokens int    `json:"tokens"`
	Bytes  int    `json:"bytes"`
	Text   bool   `json:"text"` // its tokens may be shown

	blob  []byte
	words []string // of a text; nil: asked of the model's tokenizer
}

// newSource looks into a page.
func newSource(id, kind, title string, blob []byte) (*Source, error) {
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	return &Source{
		ID: id, Kind: kind, Title: title, Model: p.Model, Layers: p.Layers, Heads: p.KVHeads, QHeads: p.QHeads, Tokens: p.Tokens,
		Bytes: len(blob), blob: blob,
	}, nil
}

// demoTitles says what the demo's pages are.
var demoTitles = map[string]string{
	"kjv": "A chapter of the King James Bible", "kjv_facts": "A text with facts to recall", "kjv_long": "A longer stretch of the same book",
}

// demo reads one of the demo's pages.
func demo(name string) (*Source, error) {
	blob, err := fs.ReadFile(configs.Demo(), name+".page.safetensors")
	if err != nil {
		return nil, err
	}
	s, err := newSource("demo:"+name, "demo", demoTitles[name], blob)
	if err == nil {
		s.Text = true
	}
	return s, err
}

// Open adds a page from a file, whose tokens may be shown.
func (s *Studio) Open(title string, blob []byte) (*Source, error) {
	src, err := newSource("file:"+title, "text", title, blob)
	if err != nil {
		return nil, err
	}
	src.Text = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, src)
	return src, nil
}

// Sources lists the pages that there are.
func (s *Studio) Sources() []Source {
	var out []Source
	for _, name := range configs.Pages() {
		if d, err := demo(name); err == nil {
			out = append(out, *d)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.texts) - 1; i >= 0; i-- {
		out = append(out, *s.texts[i])
	}
	return append(out, s.kept.list()...)
}

func (s *Studio) source(id string) (*Source, error) {
	if name, ok := strings.CutPrefix(id, "demo:"); ok && slices.Contains(configs.Pages(), name) {
		return demo(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.texts {
		if t.ID == id {
			return t, nil
		}
	}
	if src := s.kept.find(id); src != nil {
		return src, nil
	}
	return nil, failure(codes.StudioUnknownSource, "no page %q is kept: the console keeps the last ones of tenants whose policy says record", id)
}

// keptTexts bounds the texts that people have entered.
const keptTexts = 8

// AddText runs the model on a text, which becomes a source.
func (s *Studio) AddText(ctx context.Context, text string) (*Source, error) {
	if s.opt.Text == nil {
		return nil, failure(codes.StudioNoModel, "there is no model to run texts on")
	}
	if strings.TrimSpace(text) == "" {
		return nil, failure(codes.StudioText, "the text is empty")
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	blob, words, err := s.opt.Text(ctx, text)
	if err != nil {
		return nil, failure(codes.StudioText, "%v", err)
	}
	title := strings.Join(strings.Fields(text), " ")
	if r := []rune(title); len(r) > 48 {
		title = string(r[:48]) + "…"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.next++
	src, err := newSource(fmt.Sprintf("text:%d", s.kept.next), "text", title, blob)
	if err != nil {
		return nil, err
	}
	src.Text, src.words = true, words
	if s.texts = append(s.texts, src); len(s.texts) > keptTexts {
		s.texts = s.texts[1:]
	}
	return src, nil
}

// Tokens are a page's tokens.
type Tokens struct {
	Source   string   `json:"source"`
	Redacted bool     `json:"redacted"` // the tenant's policy does not let the console show what tokens say
	Words    []string `json:"words"`    // of each token; empty where redacted or not known
	IDs      []int64  `json:"ids"`      // empty where redacted
	Breaks   []int    `json:"breaks"`   // tokens that end a clause, where the page says so
}

// Tokens tells what a page's tokens are.
func (s *Studio) Tokens(id string) (*Tokens, error) {
	src, err := s.source(id)
	if err != nil {
		return nil, err
	}
	p, err := page.Decode(src.blob, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	out := &Tokens{Source: id, Redacted: !src.Text, Words: []string{}, IDs: []int64{}, Breaks: []int{}}
	for i, b := range p.Boundary {
		if b != 0 {
			out.Breaks = append(out.Breaks, i)
		}
	}
	if !src.Text {
		return out, nil
	}
	var word func(int64) (string, bool)
	if src.words == nil && s.opt.Words != nil {
		word, _ = s.opt.Words(src.Model)
	}
	for i := range p.Tokens {
		at := p.TokenIDs.At(i)
		out.IDs = append(out.IDs, at)
		switch {
		case i < len(src.words):
			out.Words = append(out.Words, src.words[i])
		case word != nil:
			w, _ := word(at)
			if !utf8.ValidString(w) {
				w = strings.ToValidUTF8(w, "�")
			}
			out.Words = append(out.Words, w)
		}
	}
	return out, nil
}

// some is the page with fewer layers, spread over it, so that it has at most so many keys.
func (s *Source) some(keys int) (*Source, error) {
	per := s.Heads * s.Tokens
	n := max(1, keys/max(per, 1))
	if n >= s.Layers {
		return s, nil
	}
	whole, err := page.Decode(s.blob, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	p := *whole
	pick := func(b []byte) (out []byte) {
		size := len(b) / whole.Layers
		for i := range n {
			l := i * whole.Layers / n
			out = append(out, b[l*size:(l+1)*size]...)
		}
		return out
	}
	p.Layers, p.K, p.V, p.Q, p.KScale, p.VScale = n, pick(whole.K), pick(whole.V), pick(whole.Q), pick(whole.KScale), pick(whole.VScale)
	blob, err := p.Append(nil)
	if err != nil {
		return nil, err
	}
	return newSource(s.ID, s.Kind, s.Title, blob)
}

// keep holds the last pages of tenants whose policy allows it.
type keep struct {
	pages []*Source // oldest first
	bytes int
	next  int
}

// The bounds of what is recorded.
const (
	keptPages = 32
	keptBytes = 128 << 20
)

func (k *keep) list() []Source {
	var out []Source
	for i := len(k.pages) - 1; i >= 0; i-- {
		out = append(out, *k.pages[i])
	}
	return out
}

func (k *keep) find(id string) *Source {
	for _, p := range k.pages {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// Record keeps a copy of a tenant's page under the id that the board gave it, as far as its policy allows. dropped are the ids of
// pages that are no longer kept.
func (s *Studio) Record(id, tenant string, blob []byte, allowed policy.Record) (kept bool, dropped []string) {
	if allowed != policy.RecordPages && allowed != policy.RecordText || len(blob) > keptBytes/2 {
		return false, nil
	}
	src, err := newSource("page:"+id, "page", "", slices.Clone(blob))
	if err != nil {
		return false, nil
	}
	src.Tenant, src.Text = tenant, allowed == policy.RecordText
	src.Title = fmt.Sprintf("%s, page %s, %d tokens", tenant, id, src.Tokens)
	if !src.Text {
		redact(src)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.kept
	k.pages, k.bytes = append(k.pages, src), k.bytes+len(blob)
	for len(k.pages) > keptPages || k.bytes > keptBytes {
		dropped = append(dropped, strings.TrimPrefix(k.pages[0].ID, "page:"))
		k.bytes -= len(k.pages[0].blob)
		k.pages = k.pages[1:]
	}
	return true, dropped
}

// Forget drops the pages of tenants whose policy does not allow them any more.
func (s *Studio) Forget(allowed func(tenant string) policy.Record) (dropped []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.kept
	left := k.pages[:0:0]
	for _, p := range k.pages {
		switch now := allowed(p.Tenant); {
		case now == policy.RecordPages && p.Text:
			c := *p // others may be looking at p
			c.Text = false
			redact(&c)
			left = append(left, &c)
		case now == policy.RecordPages || now == policy.RecordText:
			left = append(left, p)
		default:
			k.bytes -= len(p.blob)
			dropped = append(dropped, strings.TrimPrefix(p.ID, "page:"))
		}
	}
	k.pages = left
	return dropped
}

// redact overwrites the copy's token ids: what is not to be shown is not there.
func redact(s *Source) {
	p, err := page.Decode(s.blob, page.DefaultLimits())
	if err != nil {
		return
	}
	ids := make([]int32, p.Tokens)
	p.TokenIDs = page.IntsOf(ids)
	p.Sequence = ""
	if blob, err := p.Append(nil); err == nil {
		s.blob = blob
	}
}
