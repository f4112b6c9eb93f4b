package recent_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/semproxy/semproxy/proxy/recent"
)

func request(i int) recent.Request {
	return recent.Request{ID: fmt.Sprint("id", i), Object: fmt.Sprint("o", i), TraceID: fmt.Sprint("t", i), Tenant: "acme"}
}

func TestTheLastRequestsAreKeptNewestFirst(t *testing.T) {
	r := recent.New(3)
	if got := r.List(); len(got) != 0 {
		t.Errorf("empty: got %v", got)
	}
	for i := range 5 {
		r.Add(request(i))
	}
	var got []string
	for _, x := range r.List() {
		got = append(got, x.ID)
	}
	if fmt.Sprint(got) != "[id4 id3 id2]" {
		t.Errorf("got %v, want the last three, newest first", got)
	}
	if _, ok := r.Get("id1"); ok {
		t.Error("id1: got a request, want it forgotten")
	}
	r.Update("o1", func(*recent.Request) { t.Error("a forgotten request was changed") })
	if r.Page("acme", "t1", recent.Page{}) {
		t.Error("a page of a forgotten request: got true, want false")
	}
	again := request(9)
	again.ID = "id2" // the client uses an id twice; the older record goes first
	r.Add(again)
	r.Add(request(10))
	if got, ok := r.Get("id2"); !ok || got.Object != "o9" {
		t.Errorf("an id used twice: got %v, %v, want the newer request", got.Object, ok)
	}
}

func TestPagesFindTheirRequest(t *testing.T) {
	r := recent.New(10)
	first, second := request(1), request(2)
	second.TraceID = first.TraceID // one trace, two calls of a model
	r.Add(first)
	r.Add(second)
	for _, c := range []struct {
		tenant, trace string
		page          recent.Page
		want          bool
	}{
		{"acme", "t1", recent.Page{Sequence: "o1", Tokens: 100, Ratio: 0.5, Measured: true, AttentionError: 0.1}, true},
		{"acme", "other", recent.Page{Sequence: "o1", Tokens: 300, Ratio: 0.25, Measured: true, AttentionError: 0.2}, true},
		{"acme", "t1", recent.Page{Sequence: "engine's own"}, true},
		{"acme", "other", recent.Page{Sequence: "engine's own"}, false},
		{"globex", "t1", recent.Page{Sequence: "o1"}, false},
	} {
		if got := r.Page(c.tenant, c.trace, c.page); got != c.want {
			t.Errorf("%+v: got %v, want %v", c, got, c.want)
		}
	}
	if a, b := pages(r, "id1"), pages(r, "id2"); a != 2 || b != 1 {
		t.Errorf("got %d and %d pages, want 2 by name and 1 by trace", a, b)
	}
	got := r.Fidelity("o1")
	if got.Pages != 2 || math.Abs(got.Ratio-0.3125) > 1e-9 || got.AttentionError != 0.2 || !got.Measured {
		t.Errorf("got %+v, want the ratio over all tokens and the worst error", got)
	}
	r.Page("acme", "t1", recent.Page{Sequence: "o2", Tokens: 100, PerLayer: []recent.Layer{{Layer: 1, Tokens: 100, Ratio: 0.5, KeySimilarity: 0.8, Measured: true, AttentionError: 0.1}}})
	r.Page("acme", "t1", recent.Page{Sequence: "o2", Tokens: 300, PerLayer: []recent.Layer{{Layer: 0, Tokens: 300, Ratio: 0.3}, {Layer: 1, Tokens: 300, Ratio: 0.25, KeySimilarity: 0.9, AttentionError: 9}}})
	x, _ := r.Get("id2")
	if len(x.Layers) != 2 || x.Layers[0].Layer != 0 || x.Layers[1].Tokens != 400 || math.Abs(x.Layers[1].Ratio-0.3125) > 1e-9 || math.Abs(x.Layers[1].KeySimilarity-0.875) > 1e-9 ||
		x.Layers[1].AttentionError != 0.1 {
		t.Errorf("layers: got %+v, want means over all tokens and the worst error that was measured", x.Layers)
	}
	untraced := request(3)
	untraced.TraceID = ""
	r.Add(untraced)
	if r.Page("acme", "", recent.Page{}) {
		t.Error("a page without a trace: got a request that has none either, want nobody's")
	}
	for range 100 {
		r.Page("acme", "t1", recent.Page{Sequence: "o1"})
	}
	if x, _ := r.Get("id1"); len(x.Pages) != 64 || x.Omitted != 38 {
		t.Errorf("got %d pages and %d omitted, want 64 and 38", len(x.Pages), x.Omitted)
	}
}

func pages(r *recent.Ring, id string) int {
	x, _ := r.Get(id)
	return len(x.Pages)
}

func TestConcurrentUse(t *testing.T) {
	r := recent.New(8)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 200 {
				x := request(w*1000 + i)
				r.Add(x)
				r.Page("acme", x.TraceID, recent.Page{Sequence: x.Object})
				r.Update(x.Object, func(x *recent.Request) { x.Done = true })
				r.Fidelity(x.Object)
				for _, y := range r.List() {
					_ = len(y.Pages)
				}
			}
		})
	}
	group.Wait()
	if got := len(r.List()); got != 8 {
		t.Errorf("got %d requests, want the last 8", got)
	}
}
