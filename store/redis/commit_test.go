package redis

import (
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// A commit whose answer was lost is sent again, by the client library or by the loop around it.
func TestACommitThatIsSentAgainChangesNothing(t *testing.T) {
	s, err := Open(Options{Addrs: []string{redistest.Start(t).Addr}, TileBytes: 20 << 10, SweepEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, size := range map[string]int{"in the manifest": 1000, "one tile": 18 << 10, "three tiles": 50 << 10} {
		t.Run(name, func(t *testing.T) {
			key := store.Key{Tenant: "acme", Object: storetest.Object(name)}
			p := &putting{Store: s, key: key, object: s.keys.object(key), blob: storetest.Blob(1, size)}
			if err := p.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := p.commit(t.Context()); err != nil {
				t.Errorf("again: got %v, want nil", err)
			}
			if got, err := s.Get(t.Context(), key); err != nil || len(got) != size {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, size)
			}
		})
	}
}
