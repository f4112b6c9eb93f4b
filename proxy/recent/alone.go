package recent

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/semproxy/semproxy/policy"
)

// What a record of pages that belong to no request says in place of one.
const (
	AloneMethod = "PAGE"
	AloneRoute  = "kv.compress"
)

// Alone remembers a page that belongs to no request: the engine's adapter sent it without the proxy. Pages of one sequence of a
// tenant are one record. They never take the place of requests, and are as many at most.
func (r *Ring) Alone(tenant, model, traceID string, d *policy.Decision, p Page) {
	r.mu.Lock()
	r.sawAdapter(model)
	r.mu.Unlock()
	a := r.alone
	a.mu.Lock()
	known := a.objects[p.Sequence]
	if p.Sequence == "" || known == nil || known.Tenant != tenant {
		a.mu.Unlock()
		a.Add(Request{
			ID: a.nameAlone(tenant, p.Sequence), Object: p.Sequence, TraceID: traceID, Start: p.At.Add(-time.Duration(p.TotalMS * float64(time.Millisecond))),
			Tenant: tenant, Method: AloneMethod, Route: AloneRoute, Model: model, Done: true, PromptTokens: p.Tokens, PromptEstimate: p.Tokens,
		})
		a.mu.Lock()
	}
	defer a.mu.Unlock()
	request := a.slots[(a.next-1+len(a.slots))%len(a.slots)]
	if known := a.objects[p.Sequence]; p.Sequence != "" && known != nil && known.Tenant == tenant {
		request = known
	}
	if d.Tenant != "" {
		decided := *d
		request.Decision = &decided
	}
	request.Error = p.Error
	request.add(p.PerLayer)
	p.PerLayer = nil
	if len(request.Pages) >= maxPages {
		request.Omitted++
		return
	}
	request.Pages = append(request.Pages, p)
}

// nameAlone is an id that can stand in a path.
func (r *Ring) nameAlone(tenant, sequence string) string {
	if sequence == "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.nameless++
		return "page-" + strconv.Itoa(r.nameless)
	}
	plain := len(sequence) <= 128
	for i := range len(sequence) {
		c := sequence[i]
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' && i > 0)
	}
	if plain {
		return sequence
	}
	sum := sha256.Sum256([]byte(tenant + "\x00" + sequence))
	return "page-" + hex.EncodeToString(sum[:8])
}

// newestFirst merges two lists.
func newestFirst(a, b []Request) []Request {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y Request) int { return cmp.Compare(y.Start.UnixNano(), x.Start.UnixNano()) })
	return all
}
