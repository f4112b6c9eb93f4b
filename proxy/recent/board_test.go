package recent_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/recent"
)

func TestTheBoardSumsUpPagesAndRequests(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	b := recent.NewBoard(func() time.Time { return now })
	add := func(tenant string, p recent.Page) string {
		return b.Page(tenant, &recent.PageRecord{Tenant: tenant, Page: p})
	}
	first := add("acme", recent.Page{Sequence: "a", Outcome: "compressed", Profile: "half", Guard: "held", Tokens: 100, Ratio: 0.5, BytesIn: 1000, BytesOut: 400, Measured: true, AttentionError: 0.2})
	add("acme", recent.Page{Sequence: "b", Outcome: "stored", Tokens: 100, Ratio: 0.5, BytesIn: 1000, BytesOut: 400, Measured: true, AttentionError: 9})
	add("acme", recent.Page{Sequence: "c", Outcome: "exact", Tokens: 10, Ratio: 1, BytesIn: 100, BytesOut: 105})
	add("acme", recent.Page{Error: "limit.rate", BytesIn: 50})
	now = now.Add(2 * time.Minute)
	b.Request("globex", &recent.Request{Status: 200, PromptTokens: 7, Gate: &gate.Verdict{Reason: gate.Pays}})
	b.Request("globex", &recent.Request{Status: 429, Error: "limit.requests"})
	all := b.Tenants()
	if len(all) != 2 || all[0].Tenant != "acme" {
		t.Fatalf("got %+v", all)
	}
	a, g := all[0], all[1]
	if a.Pages != 4 || a.Compressed != 2 || a.Refused != 1 || a.Tokens != 210 || a.Cores != 110 || a.BytesIn != 2100 || a.BytesOut != 905 {
		t.Errorf("got %+v, want 4 pages of 210 tokens, 110 cores, 2100 bytes and 905", a)
	}
	if a.Measured != 1 || a.ErrorSum != 0.2 || a.Errors["limit.rate"] != 1 || a.Profiles["half"] != 1 || a.Guard["held"] != 1 {
		t.Errorf("got %+v, want one measured page: one from the store was measured before", a)
	}
	if g.Requests != 2 || g.Failed != 1 || g.Prompt != 7 || g.Gate["pays"] != 1 || g.Errors["limit.requests"] != 1 {
		t.Errorf("got %+v", g)
	}
	if h := b.History(""); len(h) != 2 || h[0].Pages != 4 || h[1].Requests != 2 || h[1].At-h[0].At != 120 {
		t.Errorf("got the history %+v, want two steps two minutes apart", h)
	}
	if h := b.History("globex"); len(h) != 1 || h[0].Requests != 2 {
		t.Errorf("got %+v, want globex's alone", h)
	}
	if p, ok := b.Find("a"); !ok || p.ID != first {
		t.Errorf("by its sequence: got %+v, %v", p, ok)
	}
	b.Keep(first, true)
	if p, _ := b.Find(first); !p.Recorded {
		t.Error("a page that is kept is not said to be")
	}
	now = now.Add(time.Hour)
	if h := b.History(""); len(h) != 0 {
		t.Errorf("an hour later: got %+v, want nothing", h)
	}
	if got := b.Pages("acme", 2); len(got) != 2 || got[0].Error != "limit.rate" {
		t.Errorf("got %+v, want the last two, newest first", got)
	}
}

func TestTheBoardIsBounded(t *testing.T) {
	b := recent.NewBoard(nil)
	for i := range 3000 {
		b.Page(fmt.Sprint("t", i), &recent.PageRecord{Tenant: fmt.Sprint("t", i), Page: recent.Page{Error: fmt.Sprint("e", i), Sequence: fmt.Sprint(i)}})
		b.Page("one", &recent.PageRecord{Tenant: "one", Page: recent.Page{Error: fmt.Sprint("e", i)}})
	}
	if n := len(b.Tenants()); n > 1025 {
		t.Errorf("got %d tenants", n)
	}
	if n := len(b.Pages("", 1e6)); n != 256 {
		t.Errorf("got %d pages, want the last 256", n)
	}
	for _, x := range b.Tenants() {
		if x.Tenant == "one" && (x.Refused != 3000 || len(x.Errors) > 64) {
			t.Errorf("got %d refused with %d codes", x.Refused, len(x.Errors))
		}
	}
	if _, ok := b.Find("0"); ok {
		t.Error("a page that was forgotten is found")
	}
	if p, ok := b.Find("2999"); !ok || p.Tenant != "t2999" {
		t.Errorf("got %+v, %v", p, ok)
	}
}

func TestTheBoardIsUsedByMany(t *testing.T) {
	b := recent.NewBoard(nil)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 300 {
				id := b.Page("a", &recent.PageRecord{Tenant: "a", Page: recent.Page{Tokens: 1, PerLayer: []recent.Layer{{}}}})
				b.Keep(id, true)
				b.Request("a", &recent.Request{})
				b.Find(id)
				_, _, _ = b.Tenants(), b.History("a"), b.Pages("", 9)
			}
		})
	}
	group.Wait()
	if got := b.Tenants()[0]; got.Pages != 1200 || got.Requests != 1200 {
		t.Errorf("got %+v", got.Sums)
	}
}

func TestTheRingTellsOfRequestsThatAreDone(t *testing.T) {
	var got []string
	r := recent.New(3)
	r.OnDone(func(x *recent.Request) { got = append(got, x.ID) })
	done := request(1)
	done.Done = true
	r.Add(done)
	r.Add(request(2))
	r.Update("o2", func(x *recent.Request) { x.Status = 200 })
	r.Update("o2", func(x *recent.Request) { x.Done = true })
	r.Update("o2", func(x *recent.Request) { x.Status = 201 })
	if fmt.Sprint(got) != "[id1 id2]" {
		t.Errorf("got %v, want each once", got)
	}
}
