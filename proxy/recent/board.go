package recent

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A board's history: so many steps of this length.
const (
	Step  = 10 * time.Second
	Steps = 360
)

// The bounds of a board.
const (
	boardPages   = 256 // pages that are remembered one by one
	boardTenants = 64  // tenants with a history of their own; of others only sums are kept
	mostTenants  = 1024
	mostNames    = 64 // codes, reasons and outcomes of one tenant
)

// Sums are what a tenant's pages and requests came to.
type Sums struct {
	Requests   uint64 `json:"requests"`
	Failed     uint64 `json:"requestsFailed"` // answered with 400 or more
	Prompt     uint64 `json:"promptTokens"`
	Pages      uint64 `json:"pages"`
	Compressed uint64 `json:"pagesCompressed"` // now, or earlier and taken from the store
	Refused    uint64 `json:"pagesRefused"`
	Tokens     uint64 `json:"tokens"`
	Cores      uint64 `json:"cores"` // so tokens - cores are the slots saved
	BytesIn    uint64 `json:"bytesIn"`
	BytesOut   uint64 `json:"bytesOut"`
	Measured   uint64 `json:"pagesMeasured"`
	// ErrorSum is the sum of the attention errors of the pages measured; divided by them it is their mean.
	ErrorSum float64 `json:"attentionErrorSum"`
	Worst    float64 `json:"attentionErrorWorst"` // the largest mean of a page
}

func (s *Sums) add(o *Sums) {
	s.Requests += o.Requests
	s.Failed += o.Failed
	s.Prompt += o.Prompt
	s.Pages += o.Pages
	s.Compressed += o.Compressed
	s.Refused += o.Refused
	s.Tokens += o.Tokens
	s.Cores += o.Cores
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.Measured += o.Measured
	s.ErrorSum += o.ErrorSum
	s.Worst = max(s.Worst, o.Worst)
}

// Counts is a tenant on the board.
type Counts struct {
	Tenant string `json:"tenant"`
	Sums
	Gate     map[string]uint64 `json:"gate"`     // requests by the gate's reason
	Errors   map[string]uint64 `json:"errors"`   // pages and requests by code
	Profiles map[string]uint64 `json:"profiles"` // pages by profile
	Guard    map[string]uint64 `json:"guard"`    // pages by what the guard did
	Last     time.Time         `json:"last"`     // of a page or a request
}

// Point is one step of a history.
type Point struct {
	At int64 `json:"at"` // seconds since 1970, the step's beginning
	Sums
}

// PageRecord is a page that the board remembers.
type PageRecord struct {
	ID      string  `json:"id"`
	Tenant  string  `json:"tenant"`
	Model   string  `json:"model"`
	TraceID string  `json:"traceId,omitempty"`
	Method  string  `json:"method,omitempty"`
	Page            // its layers are below
	Detail  []Layer `json:"perLayer,omitempty"`
	// Recorded: the page itself is kept too, since the tenant's policy allows it.
	Recorded bool `json:"recorded"`
}

// Board sums up what happened to each tenant since the process began, and remembers the last pages. Message content is never part
// of it. It is safe for concurrent use.
type Board struct {
	now   func() time.Time
	began time.Time

	mu      sync.Mutex
	tenants map[string]*entry
	total   history
	pages   []PageRecord // a ring
	next    uint64       // number of the next page
}

type entry struct {
	Counts
	history history // nil: none is kept
}

type history []Point // by step modulo its length; nil until used

// NewBoard makes an empty board. now may be nil.
func NewBoard(now func() time.Time) *Board {
	if now == nil {
		now = time.Now
	}
	return &Board{now: now, began: now(), tenants: map[string]*entry{}, total: make(history, Steps)}
}

// Began is when the board was made.
func (b *Board) Began() time.Time { return b.began }

// at is the point of a time; older contents are forgotten.
func (h history) at(t time.Time) *Point {
	step := t.Unix() / int64(Step/time.Second)
	p := &h[step%int64(len(h))]
	if begin := step * int64(Step/time.Second); p.At != begin {
		*p = Point{At: begin}
	}
	return p
}

// since lists the steps of the last hour that have something, oldest first.
func (h history) since(t time.Time) []Point {
	out := []Point{}
	for _, p := range h {
		if p.At > t.Unix()-int64(Steps*Step/time.Second) && p.At <= t.Unix() && p.At > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
	return out
}

// count adds to a tenant, whose name must be one of a policy's so that there are few.
func (b *Board) count(tenant string, s *Sums, change func(*Counts)) {
	now := b.now()
	e := b.tenants[tenant]
	if e == nil {
		if len(b.tenants) >= mostTenants {
			tenant = "others"
			if e = b.tenants[tenant]; e == nil {
				e = newEntry(tenant)
				b.tenants[tenant] = e
			}
		} else {
			e = newEntry(tenant)
			if len(b.tenants) < boardTenants {
				e.history = make(history, Steps)
			}
			b.tenants[tenant] = e
		}
	}
	e.add(s)
	e.Last = now
	change(&e.Counts)
	b.total.at(now).add(s)
	if e.history != nil {
		e.history.at(now).add(s)
	}
}

func newEntry(tenant string) *entry {
	return &entry{Counts: Counts{Tenant: tenant, Gate: map[string]uint64{}, Errors: map[string]uint64{}, Profiles: map[string]uint64{}, Guard: map[string]uint64{}}}
}

// one counts a name, of which there are few.
func one(m map[string]uint64, name string) {
	if _, known := m[name]; name != "" && (known || len(m) < mostNames) {
		m[name]++
	}
}

// Page counts a page and remembers it. tenant is the entry of the policy that served it, p.Tenant the tenant itself. It returns the
// page's id.
func (b *Board) Page(tenant string, p *PageRecord) string {
	s := Sums{Pages: 1}
	if p.Error != "" {
		s.Refused = 1
	} else {
		s.Tokens, s.Cores = uint64(p.Tokens), uint64(float64(p.Tokens)*p.Ratio+0.5)
		s.BytesIn, s.BytesOut = uint64(max(p.BytesIn, 0)), uint64(max(p.BytesOut, 0))
		if p.Outcome != "exact" {
			s.Compressed = 1
		}
		if p.Measured && p.Outcome == "compressed" {
			s.Measured, s.ErrorSum, s.Worst = 1, p.AttentionError, p.AttentionError
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(tenant, &s, func(t *Counts) {
		one(t.Errors, p.Error)
		one(t.Profiles, p.Profile)
		one(t.Guard, p.Guard)
	})
	b.next++
	p.ID = "p" + strconv.FormatUint(b.next, 10)
	r := *p
	r.Detail = slices.Clone(p.PerLayer)
	r.PerLayer = nil
	if len(b.pages) < boardPages {
		b.pages = append(b.pages, r)
	} else {
		b.pages[(b.next-1)%boardPages] = r
	}
	return r.ID
}

// Request counts a request that is done.
func (b *Board) Request(tenant string, r *Request) {
	s := Sums{Requests: 1, Prompt: uint64(max(r.PromptTokens, 0))}
	if r.Status >= 400 || r.Error != "" {
		s.Failed = 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(tenant, &s, func(t *Counts) {
		one(t.Errors, r.Error)
		if r.Gate != nil {
			one(t.Gate, string(r.Gate.Reason))
		}
	})
}

// Tenants lists the tenants by name.
func (b *Board) Tenants() []Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Counts, 0, len(b.tenants))
	for _, e := range b.tenants {
		t := e.Counts
		t.Gate, t.Errors, t.Profiles, t.Guard = clone(t.Gate), clone(t.Errors), clone(t.Profiles), clone(t.Guard)
		out = append(out, t)
	}
	slices.SortFunc(out, func(x, y Counts) int { return cmp.Compare(x.Tenant, y.Tenant) })
	return out
}

func clone(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// History lists the steps of the last hour in which something happened: of a tenant, or of all with an empty name.
func (b *Board) History(tenant string) []Point {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.total
	if tenant != "" {
		e := b.tenants[tenant]
		if e == nil || e.history == nil {
			return []Point{}
		}
		h = e.history
	}
	return h.since(b.now())
}

// Pages lists the last pages, newest first: of a tenant, or of all with an empty name; at most limit of them.
func (b *Board) Pages(tenant string, limit int) []PageRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []PageRecord{}
	for i := range len(b.pages) {
		p := &b.pages[(b.next-1-uint64(i))%boardPages]
		if len(out) == limit {
			break
		}
		if tenant == "" || p.Tenant == tenant {
			short := *p
			short.Detail = nil
			out = append(out, short)
		}
	}
	return out
}

// Find returns the page of an id, else the newest whose sequence, stored object or trace it is.
func (b *Board) Find(id string) (PageRecord, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range len(b.pages) {
		p := &b.pages[(b.next-1-uint64(i))%boardPages]
		if p.ID == id || id != "" && (p.Sequence == id || p.Object == id || p.TraceID == id) {
			out := *p
			out.Detail = slices.Clone(p.Detail)
			return out, true
		}
	}
	return PageRecord{}, false
}

// Keep says that the page of an id is recorded, or no longer.
func (b *Board) Keep(id string, recorded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.pages {
		if b.pages[i].ID == id {
			b.pages[i].Recorded = recorded
		}
	}
}
