package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/transport/page"
)

// Prefixes notes what stored objects stand for, and finds them by the tokens before them.
type Prefixes interface {
	Mark(ctx context.Context, tenant, place string, m store.Mark, opt store.PutOptions) error
	Marked(ctx context.Context, tenant string, places []string) ([][]store.Mark, error)
}

// placeBatch is how many places are asked for together.
const placeBatch = 256

// place names a place of a sequence for a tenant under a policy's terms: a digest of everything that the cores of what follows
// depend on, beside what follows itself.
func place(tenant string, space [32]byte, terms string, at page.Link) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("semproxy.place.2"), []byte(tenant), space[:], []byte(terms), at[:]} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// locate finds where the page lies in the chain of its sequence's links, before any work is done for it.
func (p *Pipeline) locate(j *job) (err error) {
	j.located = false
	if p.cfg.Prefixes == nil {
		return nil
	}
	j.span, j.located, err = j.page.Span()
	return err
}

// mark notes that the object stands for the page's tokens. Failing that costs sharing, and not the page.
func (p *Pipeline) mark(ctx context.Context, j *job, key store.Key, d *policy.Decision) {
	if !j.located {
		return
	}
	space, under := j.page.Space(), terms(d, j.page.Model)
	from, to := place(j.tenant, space, under, j.span.From), place(j.tenant, space, under, j.span.To)
	m := store.Mark{To: to, Tokens: j.page.Tokens, LayerFirst: j.page.LayerFirst, Layers: j.page.Layers, Object: key.Object}
	if err := p.cfg.Prefixes.Mark(ctx, j.tenant, from, m, store.PutOptions{
		TTL: time.Duration(d.Plan.Store.TTL), Quota: int64(j.rules.Limits(j.tenant).StoredBytes),
	}); err != nil {
		p.cfg.Logger.WarnContext(ctx, "prefix_not_marked", "tenant", j.tenant, "object", key.Object, "error", err)
	}
}

// Prefix answers a request for the longest stored prefix of a sequence: JSON in, JSON out.
func (p *Pipeline) Prefix(ctx context.Context, tenant string, body []byte) ([]byte, error) {
	rules := p.cfg.Policy()
	if _, ok := rules.Resolve(tenant); !ok {
		return nil, &policy.DeniedError{Tenant: tenant}
	}
	req, err := page.DecodePrefixRequest(body, p.cfg.Limits)
	if err != nil {
		return nil, err
	}
	// A page was kept by the decision of its own moment, when the sequence was shorter or another one shared its beginning.
	decisions, err := rules.Lengths(p.request(rules, tenant, req.Sequence, req.Model, req.TokensTotal, req.Headers))
	if err != nil {
		return nil, err
	}
	reply := page.PrefixReply{Pages: []page.PrefixedPage{}}
	if p.cfg.Prefixes != nil && !decisions[0].Plan.Untouched() {
		w := walk{p: p, tenant: tenant, block: req.Block, layers: req.Layers, request: req}
		for i := range decisions {
			if !decisions[i].Plan.Untouched() {
				w.terms = append(w.terms, terms(&decisions[i], req.Model))
			}
		}
		if reply.Pages, err = w.run(ctx); err != nil {
			return nil, err
		}
		for _, x := range reply.Pages {
			reply.Tokens = max(reply.Tokens, x.TokenFirst+x.Tokens)
		}
	}
	b, err := json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("prefix: %w", err)
	}
	return b, nil
}

// walk follows marks from the start of a sequence as far as every layer goes.
type walk struct {
	p             *Pipeline
	tenant        string
	block, layers int
	request       *page.PrefixRequest
	terms         []string     // of each policy, the preferred one first
	link          page.Link    // of the last of places
	places        [][]string   // of each of terms: behind each block, from 0, as far as anybody has looked
	steps         map[int]step // by place; that of place 0 is the start
}

// upTo names the first n places of every policy, as many as there are.
func (w *walk) upTo(n int) {
	for n = min(n, w.request.Places()); len(w.places[0]) < n; {
		w.link = w.request.Link(len(w.places[0]), w.link)
		for k, under := range w.terms {
			w.places[k] = append(w.places[k], place(w.tenant, w.request.Space(), under, w.link))
		}
	}
}

// step is how a place is reached: by objects that together hold every layer from an earlier place on.
type step struct {
	reached bool
	from    int
	by      []store.Mark
}

func (w *walk) run(ctx context.Context) ([]page.PrefixedPage, error) {
	w.places = make([][]string, len(w.terms))
	w.steps = map[int]step{0: {reached: true}}
	furthest, batch := 0, 1 // most sequences that nobody has seen end at the first place
	for at := 0; at <= furthest && at < w.request.Places(); {
		w.upTo(at + batch)
		to := min(at+batch, len(w.places[0]))
		marks := make([][][]store.Mark, len(w.places))
		for k, places := range w.places {
			var err error
			if marks[k], err = w.p.cfg.Prefixes.Marked(ctx, w.tenant, places[at:to]); err != nil {
				return nil, err
			}
		}
		for i := at; i < to; i++ {
			for k := range w.places {
				if w.steps[i].reached {
					furthest = max(furthest, w.follow(i, k, marks[k][i-at]))
				}
			}
		}
		at, batch = to, placeBatch
	}
	return w.pages(furthest), nil
}

// follow takes the steps that the marks of policy k at place i allow and returns the furthest place that they reach.
func (w *walk) follow(i, k int, marks []store.Mark) (furthest int) {
	byTokens := map[int][]store.Mark{}
	for _, m := range marks {
		to := i + m.Tokens/w.block
		if m.Tokens <= 0 || m.Tokens%w.block != 0 || to >= w.request.Places() {
			continue
		}
		w.upTo(to + 1)
		if m.To == w.places[k][to] {
			byTokens[m.Tokens] = append(byTokens[m.Tokens], m)
		}
	}
	for tokens, all := range byTokens {
		to := i + tokens/w.block
		if by := cover(all, w.layers); by != nil && !w.steps[to].reached {
			w.steps[to] = step{reached: true, from: i, by: by}
			furthest = max(furthest, to)
		}
	}
	return furthest
}

// cover picks marks that together hold layers 0 to layers-1; nil when some layer is missing.
func cover(marks []store.Mark, layers int) (by []store.Mark) {
	slices.SortFunc(marks, func(a, b store.Mark) int {
		return cmp.Or(cmp.Compare(a.LayerFirst, b.LayerFirst), cmp.Compare(b.Layers, a.Layers))
	})
	have := 0
	for have < layers {
		best := -1
		for i, m := range marks {
			if m.LayerFirst <= have && m.LayerFirst+m.Layers > have && (best < 0 || m.LayerFirst+m.Layers > marks[best].LayerFirst+marks[best].Layers) {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		by = append(by, marks[best])
		have = marks[best].LayerFirst + marks[best].Layers
	}
	return by
}

// pages lists what leads to a place, from the start.
func (w *walk) pages(to int) []page.PrefixedPage {
	var back [][]page.PrefixedPage
	for i := to; i > 0; i = w.steps[i].from {
		var here []page.PrefixedPage
		for _, m := range w.steps[i].by {
			here = append(here, page.PrefixedPage{
				Object: m.Object, TokenFirst: w.steps[i].from * w.block, Tokens: m.Tokens, LayerFirst: m.LayerFirst, Layers: m.Layers,
			})
		}
		back = append(back, here)
	}
	slices.Reverse(back)
	return append([]page.PrefixedPage{}, slices.Concat(back...)...)
}
