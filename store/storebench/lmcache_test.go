package storebench

import (
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
)

// What lmcache 0.5.6 itself makes of a put of a MiB: its nine words, and its key.
func TestMessagesAreLMCaches(t *testing.T) {
	b := lmMessage(lmPut, 0x1234abcd, 1<<20)
	const words = "010000000000100001000000020000000000000000000800000000000000000000000000"
	if len(b) != 186 || hex.EncodeToString(b[:36]) != words {
		t.Errorf("got %d bytes with the words %x, want 186 with %s", len(b), b[:36], words)
	}
	if key := strings.TrimRight(string(b[36:]), " "); key != "bench@1@0@000000001234abcd@half" {
		t.Errorf("got the key %q", key)
	}
}

// A server of SEMPROXY_TEST_LMCACHE (python -m lmcache.v1.server HOST PORT) gives back what was put.
func TestLMCachesServerAnswers(t *testing.T) {
	addr := os.Getenv("SEMPROXY_TEST_LMCACHE")
	if addr == "" {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "lmcache") {
			t.Fatal("SEMPROXY_TEST_REQUIRE names lmcache, and SEMPROXY_TEST_LMCACHE no server")
		}
		t.Skip("SEMPROXY_TEST_LMCACHE names no server")
	}
	l := newLMCache(addr)
	defer func() { _ = l.close() }()
	if err := l.put(t.Context(), 1, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := l.get(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := l.get(t.Context(), 2); err == nil {
		t.Error("an object that was never put: got no error")
	}
}
