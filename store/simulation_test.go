package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// The store behind a simulated clock and disk: one seed, one run. Every operation is held against what was promised.
// SEMPROXY_TEST_SIM_OPS says how many operations (100,000), SEMPROXY_TEST_SEED which.
func TestSimulation(t *testing.T) {
	ops, seed := numberOf(t, "SEMPROXY_TEST_SIM_OPS", 100_000), numberOf(t, "SEMPROXY_TEST_SEED", 1)
	began := time.Now()
	var all totals
	for round := 0; all.ops < ops; round++ {
		s := newSimulation(t, uint64(seed)+uint64(round))
		s.run(min(5_000, ops-all.ops))
		all.add(s.totals)
		if t.Failed() {
			t.Fatalf("seed %d", seed+round)
		}
	}
	t.Logf("%d operations in %v (%.0f a minute): %d puts acknowledged, %d reads, %d kills, %d power cuts, %d disks full, %d files damaged, %d jumps of the clock; 0 lost, 0 wrong",
		all.ops, time.Since(began).Round(time.Millisecond), float64(all.ops)/time.Since(began).Minutes(), all.acks, all.reads, all.kills, all.cuts, all.full, all.damaged, all.jumps)
}

type totals struct{ ops, acks, reads, kills, cuts, full, damaged, jumps int }

func (a *totals) add(b totals) {
	a.ops += b.ops
	a.acks += b.acks
	a.reads += b.reads
	a.kills += b.kills
	a.cuts += b.cuts
	a.full += b.full
	a.damaged += b.damaged
	a.jumps += b.jumps
}

// simulation is a store and what it has promised. Tenant "safe" has no quota and its objects never expire: what was
// acknowledged for it must be there, unless a file was damaged. The others are bounded, and may only be never wrong.
type simulation struct {
	totals
	t     *testing.T
	dice  *rand.Rand
	files *powerFiles
	opt   FilesOptions
	store *Files
	now   time.Time

	kept  map[Key]map[string]bool // what may be read: the last that was acknowledged, and what was tried after it
	sure  map[Key]bool            // something was acknowledged, and nothing since may have taken it away
	quota map[string]int64
	next  uint64
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{t: t, dice: rand.New(rand.NewPCG(seed, 9)), now: time.Unix(1_700_000_000, 0),
		kept: map[Key]map[string]bool{}, sure: map[Key]bool{}, quota: map[string]int64{"safe": 0, "tight": 2_000, "loose": 20_000}}
	s.files = newPowerFiles(s.dice)
	s.opt = FilesOptions{Sync: true, SweepEvery: time.Hour, Clock: func() time.Time { return s.now }, MemoryBytes: -1}
	if seed%2 == 0 {
		s.opt.MemoryBytes = 1 << 20
	}
	s.reopen()
	return s
}

func (s *simulation) reopen() {
	var err error
	if s.store, err = openOn(s.files, s.opt); err != nil {
		s.t.Fatalf("open: %v", err)
	}
}

func (s *simulation) key() Key {
	tenants := []string{"safe", "tight", "loose"}
	var b [32]byte
	b[0] = byte(s.dice.IntN(24))
	return Key{tenants[s.dice.IntN(3)], fmt.Sprintf("%x", b)}
}

// blob is content that says whose it is.
func (s *simulation) blob(key Key) []byte {
	s.next++
	b := []byte(key.Tenant + "/" + key.Object + "/")
	b = binary.LittleEndian.AppendUint64(b, s.next)
	return append(b, make([]byte, s.dice.IntN(600))...)
}

func (s *simulation) run(ops int) {
	for range ops {
		if s.t.Failed() {
			return
		}
		s.ops++
		switch p := s.dice.IntN(1000); {
		case p < 450:
			s.put()
		case p < 900:
			s.get(s.key())
		case p < 940:
			s.delete()
		case p < 960:
			s.jump()
		case p < 970:
			s.fill()
		case p < 980:
			s.damage()
		case p < 990:
			s.kill()
		default:
			s.cut()
		}
	}
	s.files.room = -1
	s.kill()
	for key := range s.kept {
		s.get(key)
	}
	if err := s.store.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
}

func (s *simulation) put() {
	key := s.key()
	blob := s.blob(key)
	opt := PutOptions{Quota: s.quota[key.Tenant]}
	if key.Tenant != "safe" && s.dice.IntN(3) == 0 {
		opt.TTL = time.Duration(1+s.dice.IntN(100)) * time.Second
	}
	if s.kept[key] == nil {
		s.kept[key] = map[string]bool{}
	}
	full := s.files.room >= 0
	err := s.store.Put(context.Background(), key, blob, opt)
	switch {
	case err == nil:
		s.acks++
		s.kept[key] = map[string]bool{string(blob): true}
		s.sure[key] = key.Tenant == "safe"
		if full { // others' oldest objects may have made room
			s.nothingIsSure(key)
		}
	case errors.Is(err, ErrUnavailable) && full:
		s.kept[key][string(blob)] = true // it may be there: the reply was an error
		s.nothingIsSure(Key{})
	default:
		s.t.Errorf("put: %v", err)
	}
	if _, bytes, _ := s.store.Usage(context.Background(), key.Tenant); opt.Quota > 0 && bytes > opt.Quota {
		s.t.Errorf("tenant %s holds %d bytes, over its quota of %d", key.Tenant, bytes, opt.Quota)
	}
}

func (s *simulation) nothingIsSure(but Key) {
	for key := range s.sure {
		if key != but {
			delete(s.sure, key)
		}
	}
}

func (s *simulation) get(key Key) {
	s.reads++
	got, err := s.store.Get(context.Background(), key)
	switch {
	case err == nil && !s.kept[key][string(got)]:
		s.t.Errorf("wrong: %s/%.8s is what was never put, or was replaced", key.Tenant, key.Object)
	case errors.Is(err, ErrNotFound) && s.sure[key]:
		s.t.Errorf("lost: %s/%.8s was acknowledged", key.Tenant, key.Object)
	case err != nil && !errors.Is(err, ErrNotFound):
		s.t.Errorf("get: %v", err)
	}
}

func (s *simulation) delete() {
	key := s.key()
	if err := s.store.Delete(context.Background(), key); err != nil {
		s.t.Errorf("delete: %v", err)
	}
	delete(s.sure, key)
	if _, err := s.store.Get(context.Background(), key); !errors.Is(err, ErrNotFound) {
		s.t.Errorf("deleted, and still there: %v", err)
	}
}

// jump sets the clock forward or, as clocks do, back.
func (s *simulation) jump() {
	s.jumps++
	s.now = s.now.Add(time.Duration(s.dice.IntN(200)-60) * time.Second)
}

// fill makes the disk full, or gives it room again.
func (s *simulation) fill() {
	if s.files.room >= 0 {
		s.files.room = -1
		return
	}
	s.full++
	s.files.room = s.dice.IntN(1_000)
}

func (s *simulation) damage() {
	if s.files.damage() {
		s.damaged++
		s.nothingIsSure(Key{})
	}
}

// kill ends the process: what it had in memory is gone, its files are there.
func (s *simulation) kill() {
	s.kills++
	_ = s.store.Close() // writes nothing
	s.reopen()
}

// cut takes the power away as well.
func (s *simulation) cut() {
	s.cuts++
	_ = s.store.Close()
	s.files.cut()
	// A removal that was not synced may be undone: an older version is no fault where a newer one was not acknowledged, and
	// what was deleted may be there again.
	s.reopen()
	for key, may := range s.kept {
		if s.sure[key] {
			continue
		}
		if got, err := s.store.Get(context.Background(), key); err == nil && len(got) > 0 && ownedBy(got, key) {
			may[string(got)] = true
		}
	}
}

// ownedBy reports whether content says that it is the key's.
func ownedBy(blob []byte, key Key) bool {
	name := key.Tenant + "/" + key.Object + "/"
	return len(blob) >= len(name) && string(blob[:len(name)]) == name
}

func numberOf(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
