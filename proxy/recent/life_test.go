package recent_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/spans"
)

// What decides a request's pages lasts as long as they may come, however many requests of other tenants come and end.
func TestWhatDecidesPagesLastsForTheRequestsLife(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := recent.New(3)
	r.SetNow(func() time.Time { return now })
	add := func(tenant, object string) {
		r.Add(recent.Request{ID: object, Object: object, Tenant: tenant, Headers: map[string]string{"X-Tier": object}})
	}
	known := func(tenant, object string) bool {
		_, spans := r.Protected(tenant, object)
		if headers := r.Headers(tenant, object)["X-Tier"] == object; headers != spans {
			t.Errorf("%s of %s: headers are known: %v, spans: %v", object, tenant, headers, spans)
		}
		return spans
	}
	add("acme", "mine")
	r.Protect("acme", "mine", []spans.Span{{2, 5}})
	for i := range 9000 { // more than any bound, of a tenant of its own
		object := fmt.Sprint("o", i)
		add("noisy", object)
		r.Protect("noisy", object, nil)
		r.End("noisy", object)
	}
	if !known("acme", "mine") || known("noisy", "mine") {
		t.Error("a request under way: got it forgotten, or another tenant's")
	}
	if _, ok := r.Get("mine"); ok {
		t.Error("its record: got it, want it displaced by the last three")
	}
	if known("noisy", "o0") || !known("noisy", "o8999") {
		t.Error("the noisy tenant: want its oldest forgotten and its last known")
	}
	if _, n := r.Lives(); n != 1+4096 {
		t.Errorf("kept: got %d requests, want the one under way and 4096 that ended", n)
	}

	r.End("acme", "mine")
	now = now.Add(9 * time.Minute)
	r.End("acme", "mine") // twice is once
	if got, ok := r.Protected("acme", "mine"); !ok || len(got) != 1 || got[0] != (spans.Span{2, 5}) {
		t.Errorf("nine minutes after its end: got %v, %v, want its spans", got, ok)
	}
	now = now.Add(2 * time.Minute)
	r.End("other", "never seen")
	if known("acme", "mine") {
		t.Error("eleven minutes after its end: got it, want it forgotten")
	}
	if tenants, n := r.Lives(); tenants != 0 || n != 0 {
		t.Errorf("at the end: got %d requests of %d tenants, want none", n, tenants)
	}
}

// A request that no rule looks at the headers of, and that protects nothing, costs nothing.
func TestARequestWithNothingToDecideByIsNotKept(t *testing.T) {
	r := recent.New(3)
	r.Add(recent.Request{ID: "a", Object: "a", Tenant: "acme"})
	if _, n := r.Lives(); n != 0 {
		t.Errorf("got %d kept, want none", n)
	}
	if _, known := r.Protected("acme", "a"); known || r.Headers("acme", "a") != nil {
		t.Error("got something known, want nothing")
	}
}
