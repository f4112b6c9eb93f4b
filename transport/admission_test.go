package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// origin is the time of the tests below; the admission reads no clock.
var origin = time.Unix(1_700_000_000, 0)

func newRequest(tenant string, size int64) *request { return &request{tenant: tenant, size: size} }

// must admits a request that has to fit without displacing another.
func must(t *testing.T, a *admission, tenant string, size int64) {
	t.Helper()
	if displaced, no := a.admit(newRequest(tenant, size), Limits{}, origin); no != nil || len(displaced) > 0 {
		t.Fatalf("admit %s: got refusal %v, %d displaced, want admitted", tenant, no, len(displaced))
	}
}

func wantRefusal(t *testing.T, no *refusal, code string) {
	t.Helper()
	if no == nil || no.err.Code() != code {
		t.Fatalf("got refusal %+v, want %s", no, code)
	}
	if Retryable(code) != (no.after > 0) {
		t.Errorf("%s: got retry after %v, want more than 0 only where it is retryable", code, no.after)
	}
}

func order(a *admission, n int) string {
	var s strings.Builder
	for range n {
		s.WriteString(a.next().tenant)
	}
	return s.String()
}

func TestTenantsAreServedInTurn(t *testing.T) {
	a := newAdmission(10, 100, 10, 1)
	for _, tenant := range []string{"a", "a", "a", "a", "b", "b", "c"} {
		must(t, a, tenant, 1)
	}
	if got, want := order(a, 7), "abcabaa"; got != want {
		t.Errorf("order: got %s, want %s", got, want)
	}
}

func TestAFullQueueMakesRoomForALighterTenant(t *testing.T) {
	a := newAdmission(4, 100, 10, 1)
	for range 4 {
		must(t, a, "hog", 1)
	}
	_, no := a.admit(newRequest("hog", 1), Limits{}, origin)
	wantRefusal(t, no, CodeBusy)
	for i, want := range []int{1, 1} {
		displaced, no := a.admit(newRequest("light", 1), Limits{}, origin)
		if no != nil || len(displaced) != want || displaced[0].tenant != "hog" {
			t.Fatalf("light request %d: got %v, %d displaced, want one of hog displaced", i, no, len(displaced))
		}
	}
	_, no = a.admit(newRequest("light", 1), Limits{}, origin)
	wantRefusal(t, no, CodeBusy)
	if got := a.load(); got.queued != 4 || got.bytes != 4 {
		t.Errorf("load: got %+v, want 4 queued, 4 bytes", got)
	}
}

func TestBytesMakeRoomForALighterTenantOrChangeNothing(t *testing.T) {
	a := newAdmission(100, 100, 10, 1)
	for range 10 {
		must(t, a, "hog", 10)
	}
	displaced, no := a.admit(newRequest("light", 25), Limits{}, origin)
	if no != nil || len(displaced) != 3 {
		t.Fatalf("25 bytes: got %v, %d displaced, want 3 of hog's ten", no, len(displaced))
	}
	before := a.load()
	displaced, no = a.admit(newRequest("light", 60), Limits{}, origin)
	wantRefusal(t, no, CodeBusy)
	if got := a.load(); got != before || len(displaced) != 0 {
		t.Errorf("after a refusal: got %+v and %d displaced, want %+v and none", got, len(displaced), before)
	}
}

func TestAPageThatNeverFitsIsFinal(t *testing.T) {
	a := newAdmission(4, 100, 10, 1)
	_, no := a.admit(newRequest("a", 101), Limits{}, origin)
	wantRefusal(t, no, CodePageTooLarge)
	_, no = a.admit(newRequest("a", 51), Limits{InFlightBytes: 50}, origin)
	wantRefusal(t, no, CodePageTooLarge)
}

func TestATenantsBytesComeBackWhenItsRequestsEnd(t *testing.T) {
	a := newAdmission(10, 1000, 10, 1)
	limits := Limits{InFlightBytes: 100}
	if _, no := a.admit(newRequest("a", 60), limits, origin); no != nil {
		t.Fatalf("first: got %v, want admitted", no.err)
	}
	r := a.next()
	_, no := a.admit(newRequest("a", 60), limits, origin)
	wantRefusal(t, no, CodeBytes)
	if _, no := a.admit(newRequest("b", 60), limits, origin); no != nil {
		t.Errorf("another tenant: got %v, want admitted", no.err)
	}
	a.done(r, time.Millisecond)
	if _, no := a.admit(newRequest("a", 60), limits, origin); no != nil {
		t.Errorf("after done: got %v, want admitted", no.err)
	}
}

func TestRateHasABurstOfOneSecondAndFollowsThePolicy(t *testing.T) {
	a := newAdmission(100, 1000, 10, 1)
	admit := func(perSecond float64, at time.Duration) *refusal {
		_, no := a.admit(newRequest("a", 1), Limits{PagesPerSecond: perSecond}, origin.Add(at))
		return no
	}
	for i := range 2 {
		if no := admit(2, 0); no != nil {
			t.Fatalf("message %d of the burst: got %v, want admitted", i, no.err)
		}
	}
	no := admit(2, 0)
	wantRefusal(t, no, CodeRate)
	if no.after != 500*time.Millisecond {
		t.Errorf("retry after: got %v, want 500ms", no.after)
	}
	if no := admit(2, 500*time.Millisecond); no != nil {
		t.Errorf("after that pause: got %v, want admitted", no.err)
	}
	wantRefusal(t, admit(2, 500*time.Millisecond), CodeRate)
	if no := admit(0, 500*time.Millisecond); no != nil {
		t.Errorf("limit lifted by a reload: got %v, want admitted", no.err)
	}
	if no := admit(0.25, 500*time.Millisecond); no != nil {
		t.Errorf("limit below one per second: got %v, want a burst of one", no.err)
	}
	no = admit(0.25, 500*time.Millisecond)
	wantRefusal(t, no, CodeRate)
	if no.after != 4*time.Second {
		t.Errorf("retry after: got %v, want 4s", no.after)
	}
}

func TestARefusedMessageUsesNothingOfTheRate(t *testing.T) {
	a := newAdmission(100, 1000, 10, 1)
	limits := Limits{PagesPerSecond: 2, InFlightBytes: 10}
	if _, no := a.admit(newRequest("a", 10), limits, origin); no != nil {
		t.Fatalf("first: got %v, want admitted", no.err)
	}
	for range 5 {
		_, no := a.admit(newRequest("a", 10), limits, origin)
		wantRefusal(t, no, CodeBytes)
	}
	a.done(a.next(), 0)
	if _, no := a.admit(newRequest("a", 10), limits, origin); no != nil {
		t.Errorf("second of two per second: got %v, want admitted", no.err)
	}
}

func TestTenThousandTenantsAreNotRemembered(t *testing.T) {
	const remembered = 64
	a := newAdmission(16, 1000, remembered, 1)
	for i := range 10_000 {
		must(t, a, fmt.Sprint("tenant-", i), 1)
		if i%8 == 7 {
			for range 8 {
				a.done(a.next(), 0)
			}
		}
	}
	got := a.load()
	if got.tenants > remembered || a.idle.Len() != got.tenants || a.turns.Len() != 0 || got.bytes != 0 {
		t.Errorf("got %+v, %d idle, %d in turn; want at most %d tenants, all idle", got, a.idle.Len(), a.turns.Len(), remembered)
	}
}

func TestATableFullOfBusyTenantsRefusesNewOnes(t *testing.T) {
	a := newAdmission(16, 1000, 2, 1)
	must(t, a, "a", 1)
	must(t, a, "b", 1)
	_, no := a.admit(newRequest("c", 1), Limits{}, origin)
	wantRefusal(t, no, CodeBusy)
	a.done(a.next(), 0)
	must(t, a, "c", 1)
}

func TestThePauseGrowsWithTheQueue(t *testing.T) {
	a := newAdmission(1000, 1000, 10, 2)
	if got := a.retryAfter(); got != minPause {
		t.Errorf("at rest: got %v, want %v", got, minPause)
	}
	for range 100 {
		must(t, a, "a", 1)
		a.done(a.next(), 40*time.Millisecond)
	}
	for range 10 {
		must(t, a, "a", 1)
	}
	if got := a.retryAfter(); got < 150*time.Millisecond || got > 250*time.Millisecond {
		t.Errorf("ten ahead of two workers at 40ms each: got %v, want about 220ms", got)
	}
	for range 900 {
		must(t, a, "a", 1)
	}
	if got := a.retryAfter(); got != maxPause {
		t.Errorf("very long queue: got %v, want %v", got, maxPause)
	}
}

func TestTakeAllEmptiesAndCloses(t *testing.T) {
	a := newAdmission(10, 100, 10, 1)
	must(t, a, "a", 1)
	must(t, a, "a", 1)
	must(t, a, "b", 1)
	running := a.next()
	quiet := a.whenQuiet()
	if got := len(a.takeAll()); got != 2 {
		t.Errorf("taken: got %d, want 2", got)
	}
	select {
	case <-quiet:
		t.Error("quiet while a request runs")
	default:
	}
	a.done(running, 0)
	<-quiet
	_, no := a.admit(newRequest("a", 1), Limits{}, origin)
	wantRefusal(t, no, CodeDraining)
	if r := a.next(); r != nil {
		t.Errorf("next after close: got %v, want nil", r)
	}
}
