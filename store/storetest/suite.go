package storetest

import (
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
)

// Store is what every store offers.
type Store = store.Store

// Options are what a test asks of the store that it opens.
type Options struct {
	MaxBytes int64 // limit of all tenants together; 0: none that the tests reach
}

// Harness is an open, empty store and the handles that a test needs on it. The suite closes the store.
type Harness struct {
	Store Store
	// Advance lets time pass for the store: a clock set forward, or a sleep.
	Advance func(d time.Duration)
	// Reopen closes the store and opens it again on the same data. nil: nothing survives by design.
	Reopen func(t *testing.T) Store
	// Damage changes the stored bytes of an object behind the store's back. nil: not possible.
	Damage func(t *testing.T, key store.Key)
	// Overhead is what an object takes beside the bytes that were put.
	Overhead int64
	// NoTotal: the store has no limit of all tenants together.
	NoTotal bool
}

// unit is the life that tests of expiry measure with: long beside an operation, short beside a test's time.
const unit = 300 * time.Millisecond

// Open opens an empty store for one test.
type Open func(t *testing.T, opt Options) Harness

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, c := range []struct {
		name string
		opt  Options
		run  func(t *testing.T, h Harness)
	}{
		{"a put object is read back and described", Options{}, putGetStat},
		{"an object never put is not found", Options{}, missing},
		{"an empty object is an object", Options{}, empty},
		{"the caller's blob may be reused after Put", Options{}, callerKeepsBlob},
		{"other content under the same key replaces it", Options{}, replace},
		{"a repeated put changes nothing", Options{}, repeat},
		{"a repeated put never shortens a life and lengthens it when it matters", Options{}, repeatTTL},
		{"tenants do not see each other's objects", Options{}, tenants},
		{"hostile tenant names are only names", Options{}, hostileTenants},
		{"bad keys are refused", Options{}, badKeys},
		{"an expired object is not found and costs nothing", Options{}, expiry},
		{"a deleted object is gone and deleting again is harmless", Options{}, remove},
		{"a quota evicts the tenant's own oldest", Options{}, quota},
		{"an object over the quota is refused and evicts nothing", Options{}, tooLargeForQuota},
		{"the total limit evicts the oldest of all", Options{MaxBytes: 100}, totalLimit},
		{"an object over the total limit is refused", Options{MaxBytes: 100}, tooLargeForAll},
		{"a cancelled context is an error, not a write", Options{}, cancelled},
		{"concurrent use keeps content and account right", Options{}, concurrent},
		{"a closed store refuses", Options{}, closed},
		{"a reopened store has everything", Options{}, reopen},
		{"a damaged object is a miss and can be put again", Options{}, damaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, c.opt)
			t.Cleanup(func() {
				if err := h.Store.Close(); err != nil {
					t.Errorf("Close: got %v, want nil", err)
				}
			})
			c.run(t, h)
		})
	}
}
