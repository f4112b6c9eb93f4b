package redis_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
)

// refusals collects the kinds that a store is refused with.
type refusals struct {
	mu    sync.Mutex
	kinds map[string]int
}

func (r *refusals) take(kind string, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = map[string]int{}
	}
	r.kinds[kind]++
}

func (r *refusals) count(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds[kind]
}

// A server that is there and refuses is told of by its kind, moves the breaker and the trial, and is used again when it
// takes writes again. What can still be read is read.
func TestRefusalsAreToldAndMoveTheBreaker(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind        string
		args        []string
		user        string
		refuse      func(t *testing.T, admin *goredis.Client)
		relent      func(t *testing.T, admin *goredis.Client)
		stillToRead bool
	}{
		{kind: "OOM", stillToRead: true,
			refuse: config("maxmemory", "1"), relent: config("maxmemory", "0")},
		{kind: "READONLY", stillToRead: true,
			refuse: func(t *testing.T, a *goredis.Client) { must(t, a.ReplicaOf(t.Context(), "127.0.0.1", "1").Err()) },
			relent: func(t *testing.T, a *goredis.Client) { must(t, a.ReplicaOf(t.Context(), "NO", "ONE").Err()) }},
		{kind: "NOPERM", stillToRead: true, user: "app",
			refuse: acl("-@scripting"), relent: acl("+@scripting")},
		{kind: "NOPERM", stillToRead: true, user: "app", // scripts run, and what they call does not
			refuse: acl("-@write"), relent: acl("+@write")},
		{kind: "MISCONF", stillToRead: true, args: []string{"--save", "1 1"},
			refuse: func(t *testing.T, a *goredis.Client) {
				must(t, os.RemoveAll(a.ConfigGet(t.Context(), "dir").Val()["dir"])) // where it would save
				_ = a.BgSave(t.Context()).Err()
			},
			relent: config("stop-writes-on-bgsave-error", "no")},
		{kind: "NOREPLICAS", stillToRead: true,
			refuse: config("min-replicas-to-write", "1"), relent: config("min-replicas-to-write", "0")},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, c.args...)
			admin := server.Client(t)
			var seen refusals
			opt := redis.Options{Addrs: []string{server.Addr}, Refused: seen.take}
			if c.user != "" {
				must(t, admin.Do(t.Context(), "ACL", "SETUSER", c.user, "on", ">pw", "~*", "&*", "+@all").Err())
				opt.Credentials = func() (string, string, error) { return c.user, "pw", nil }
			}
			s := open(t, opt)
			must(t, s.Trial(t.Context()))
			must(t, s.Put(t.Context(), testKey("a"), content, store.PutOptions{}))
			c.refuse(t, admin)
			redistest.Eventually(t, "the trial fails", func() bool { return errors.Is(s.Trial(t.Context()), store.ErrUnavailable) })
			redistest.Eventually(t, "the breaker opens", func() bool {
				if err := s.Put(t.Context(), testKey("b"), content, store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
					t.Fatalf("Put: got %v, want %v", err, store.ErrUnavailable)
				}
				_, _ = s.Get(t.Context(), testKey("b")) // as before each put of a page: what is read well is no sign that writes are taken
				return s.Stats().Open == 1
			})
			if seen.count(c.kind) == 0 {
				t.Errorf("kinds: got %v, want %s", seen.kinds, c.kind)
			}
			if c.stillToRead {
				if got, err := s.Get(t.Context(), testKey("a")); err != nil || string(got) != string(content) {
					t.Errorf("Get meanwhile: got %d bytes, %v, want the object", len(got), err)
				}
			}
			c.relent(t, admin)
			redistest.Eventually(t, "it is written again", func() bool {
				return s.Put(t.Context(), testKey("b"), content, store.PutOptions{}) == nil && s.Trial(t.Context()) == nil && s.Stats().Open == 0
			})
		})
	}
}

func config(name, value string) func(*testing.T, *goredis.Client) {
	return func(t *testing.T, a *goredis.Client) {
		t.Helper()
		must(t, a.ConfigSet(t.Context(), name, value).Err())
	}
}

func acl(rule string) func(*testing.T, *goredis.Client) {
	return func(t *testing.T, a *goredis.Client) {
		t.Helper()
		must(t, a.Do(t.Context(), "ACL", "SETUSER", "app", rule).Err())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Marks count as stored bytes: a tenant that sends one page under ever new salts does not fill Redis.
func TestMarksCountAndMakeRoom(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redis.Options{Addrs: []string{server.Addr}, SweepEvery: -1})
	const quota = 64 << 10
	key := testKey("a")
	must(t, s.Put(t.Context(), key, content, store.PutOptions{Quota: quota}))
	for i := range 500 {
		must(t, s.Mark(t.Context(), key.Tenant, testKey(string(rune('b'+i))).Object, store.Mark{To: key.Object, Tokens: 16, Layers: 1, Object: key.Object}, store.PutOptions{Quota: quota}))
	}
	objects, bytes, err := s.Usage(t.Context(), key.Tenant)
	if err != nil || bytes > quota || objects != 1 {
		t.Errorf("usage: got %d objects, %d bytes, %v, want the one object within %d", objects, bytes, err, quota)
	}
	n := 0
	for _, k := range server.Client(t).Keys(t.Context(), "*:p").Val() {
		_ = k
		n++
	}
	if n > quota>>10 {
		t.Errorf("%d marks are kept, want at most %d", n, quota>>10)
	}
	if _, err := s.Get(t.Context(), key); err != nil {
		t.Errorf("the object that the marks lead to: got %v", err)
	}
}

// A mark whose maker died before it was in the account is found by the sweep.
func TestTheSweepAdoptsMarks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redis.Options{Addrs: []string{server.Addr}, SweepEvery: -1})
	key := testKey("a")
	must(t, s.Put(t.Context(), key, content, store.PutOptions{}))
	must(t, s.Mark(t.Context(), key.Tenant, testKey("b").Object, store.Mark{To: key.Object, Tokens: 16, Layers: 1, Object: key.Object}, store.PutOptions{}))
	_, before, err := s.Usage(t.Context(), key.Tenant)
	must(t, err)
	a := server.Client(t)
	for _, k := range a.Keys(t.Context(), "*:objects").Val() {
		must(t, a.Del(t.Context(), k).Err())
	}
	for _, k := range a.Keys(t.Context(), "*:account").Val() {
		must(t, a.HDel(t.Context(), k, "places", "bytes").Err())
	}
	redistest.Eventually(t, "the account is whole again", func() bool {
		must(t, s.Sweep(t.Context()))
		objects, bytes, err := s.Usage(t.Context(), key.Tenant)
		return err == nil && bytes == before && objects == 1
	})
}
