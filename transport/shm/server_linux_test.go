package shm

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

func TestAPageAndItsReplyGoThroughSharedMemory(t *testing.T) {
	for name, opts := range map[string]Options{"memfd": {}, "file": {File: true}, "memfd with checksum": {Checksum: true}} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, nil)
			s := f.dial(t, "acme", opts)
			for i, n := range []int{0, 1, 4096, 1<<20 + 7} {
				page, want := randomPage(uint64(i), n), randomPage(uint64(i+100), n/2+1)
				l, err := s.Put(page, int64(len(want)))
				if err != nil {
					t.Fatal(err)
				}
				b, err := f.Open("acme", l.Descriptor())
				if err != nil {
					t.Fatal(err)
				}
				if b.Size() != int64(n) {
					t.Errorf("size: got %d, want %d", b.Size(), n)
				}
				if got, err := b.Read(); err != nil || !bytes.Equal(got, page) {
					t.Fatalf("page of %d bytes: got %d, %v", n, len(got), err)
				}
				text, ok := b.Write(want)
				if !ok {
					t.Fatal("the reply fits its room, got false")
				}
				b.Close()
				if got, err := l.Reply(text); err != nil || !bytes.Equal(got, want) {
					t.Errorf("reply of %d bytes: got %d, %v", len(want), len(got), err)
				}
				l.Release()
			}
			if u := f.usage(); u.regions != 1 || u.bytes != 256<<20 {
				t.Errorf("usage: got %+v, want one region of 256 MiB", u)
			}
			left, err := filepath.Glob(filepath.Join(Folder, FilePrefix+"*"))
			if err != nil || (name == "file" && len(left) > 0) {
				t.Errorf("files left in %s: %v, %v", Folder, left, err)
			}
		})
	}
}

func TestAReplyThatDoesNotFitGoesOverNATS(t *testing.T) {
	f := serve(t, nil)
	l, err := f.dial(t, "acme", Options{}).Put([]byte("page"), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	b, err := f.Open("acme", l.Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, ok := b.Write(make([]byte, 11)); ok {
		t.Error("11 bytes into a room of 10: got true, want false")
	}
	if _, ok := b.Write(make([]byte, 10)); !ok {
		t.Error("10 bytes into a room of 10: got false, want true")
	}
}

func TestARegionThatIsFullSaysSoAndSpaceIsUsedAgain(t *testing.T) {
	f := serve(t, nil)
	s := f.dial(t, "acme", Options{RegionBytes: 64 << 10})
	l, err := s.Put(make([]byte, 30<<10), 10<<10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(make([]byte, 30<<10), 10<<10); !errors.Is(err, ErrFull) {
		t.Errorf("second page: got %v, want %v", err, ErrFull)
	}
	l.Release()
	l.Release() // once is enough
	if l, err = s.Put(make([]byte, 30<<10), 10<<10); err != nil {
		t.Errorf("after the release: %v", err)
	}
	first := l.d.Region
	// An answer that did not come: nothing of that region is used again, and the sidecar forgets it.
	l.Abandon()
	if _, err := f.Open("acme", l.Descriptor()); codeOf(err) != CodeUnknownRegion {
		t.Errorf("descriptor of an abandoned page: got %v, want code %s", err, CodeUnknownRegion)
	}
	l, err = s.Put([]byte("page"), 0)
	if err != nil || l.d.Region == first {
		t.Errorf("after an abandoned page: got region %s (%v), want a new one", l.d.Region, err)
	}
	l.Release()
}

func TestRegionsThatAreRefused(t *testing.T) {
	const size = 64 << 10
	f := serve(t, func(c *Config) { c.MaxRegionBytes, c.MaxRegions = 1<<20, 2 })
	r := f.raw(t)
	add := fmt.Sprintf(`{"op":"add","size":%d}`, size)
	refusedAs := func(name, code string, a answer) {
		t.Helper()
		if a.Code != code || a.Error == "" || a.Region != "" {
			t.Errorf("%s: got %+v, want code %s", name, a, code)
		}
		if f.counted(t, code) == 0 {
			t.Errorf("%s: %s was not counted", name, code)
		}
	}
	refusedAs("before the tenant is known", CodeNotAttached, r.say(add, memfd(t, size, seals)))
	if err := f.Attach("acme", "guess"); codeOf(err) != CodeBadChallenge {
		t.Errorf("a guessed challenge: got %v, want code %s", err, CodeBadChallenge)
	}
	if err := errors.Join(f.Attach("acme", r.Challenge), f.Attach("acme", r.Challenge)); err != nil {
		t.Errorf("attach, twice: %v", err)
	}
	if err := f.Attach("globex", r.Challenge); codeOf(err) != CodeBadChallenge {
		t.Errorf("a challenge of another tenant: got %v, want code %s", err, CodeBadChallenge)
	}

	refusedAs("no seals", CodeUnsealed, r.say(add, memfd(t, size, 0)))
	refusedAs("can be cut short", CodeUnsealed, r.say(add, memfd(t, size, unix.F_SEAL_GROW|unix.F_SEAL_SEAL)))
	refusedAs("can grow", CodeUnsealed, r.say(add, memfd(t, size, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)))
	refusedAs("can be sealed against writing", CodeUnsealed, r.say(add, memfd(t, size, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)))
	refusedAs("an open file of /dev/shm", CodeUnsealed, r.say(add, shared(t, size)))
	refusedAs("smaller than said", CodeBadRegion, r.say(add, memfd(t, size-1, seals)))
	refusedAs("larger than said", CodeBadRegion, r.say(add, memfd(t, size+1, seals)))
	refusedAs("no size", CodeBadRegion, r.say(`{"op":"add"}`, memfd(t, size, seals)))
	refusedAs("negative size", CodeBadRegion, r.say(`{"op":"add","size":-1}`, memfd(t, size, seals)))
	refusedAs("largest size", CodeLimit, r.say(`{"op":"add","size":9223372036854775807}`, memfd(t, size, seals)))
	refusedAs("no descriptor", CodeBadRegion, r.say(add))
	refusedAs("two descriptors", CodeBadRegion, r.say(add, memfd(t, size, seals), memfd(t, size, seals)))
	refusedAs("not JSON", CodeBadRegion, r.say("hello"))
	refusedAs("unknown operation", CodeBadRegion, r.say(`{"op":"map"}`))
	refusedAs("drop of nothing", CodeUnknownRegion, r.say(`{"op":"drop","region":"x"}`))

	reading, writing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	defer writing.Close()
	refusedAs("a pipe", CodeBadRegion, r.say(add, reading))
	ordinary, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer ordinary.Close()
	if a := r.say(add, ordinary); a.Code != CodeBadRegion && a.Code != CodeUnsealed {
		t.Errorf("a file: got %+v, want it refused", a)
	}
	sealed := memfd(t, size, seals)
	readOnly, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(sealed.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	refusedAs("read only", CodeBadRegion, r.say(add, readOnly))

	if a := r.say(add, sealed); a.Code != "" || !validID(a.Region) {
		t.Errorf("a good one after all those: got %+v", a)
	}
	if a := r.say(add, memfd(t, size, seals)); a.Code != "" {
		t.Errorf("a second: got %+v", a)
	}
	refusedAs("a third of two", CodeLimit, r.say(add, memfd(t, size, seals)))
}

func TestFilesThatAreRefused(t *testing.T) {
	const size = 64 << 10
	f := serve(t, nil)
	r := f.raw(t)
	if err := f.Attach("acme", r.Challenge); err != nil {
		t.Fatal(err)
	}
	add := func(name string) answer { return r.say(fmt.Sprintf(`{"op":"add","size":%d,"file":%q}`, size, name)) }
	base := filepath.Base
	temporary := func(name string) string {
		path := filepath.Join(Folder, fmt.Sprintf("%s%d-%s", FilePrefix, os.Getpid(), name))
		t.Cleanup(func() { _ = os.Remove(path) })
		return path
	}
	file := shared(t, size)
	link, hard, fifo, folder := temporary("link"), temporary("hard"), temporary("fifo"), temporary("folder")
	if err := errors.Join(os.Symlink(file.Name(), link), unix.Mkfifo(fifo, 0o600), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"a path":         "../../etc/passwd",
		"another prefix": "passwd",
		"not there":      FilePrefix + "missing",
		"a symlink":      base(link),
		"a FIFO":         base(fifo),
		"a folder":       base(folder),
		"a NUL":          FilePrefix + "\x00",
		"another size":   base(shared(t, size-1).Name()),
	} {
		if a := add(file); a.Code != CodeBadRegion {
			t.Errorf("%s: got %+v, want code %s", name, a, CodeBadRegion)
		}
	}
	if a := add(base(file.Name())); a.Code != "" {
		t.Errorf("a good file: got %+v", a)
	}
	if err := os.Link(file.Name(), hard); err != nil {
		t.Fatal(err)
	}
	if a := add(base(file.Name())); a.Code != CodeBadRegion {
		t.Errorf("a file with two names: got %+v, want code %s", a, CodeBadRegion)
	}
	if os.Geteuid() == 0 { // only the superuser can give a file away
		other := shared(t, size)
		if err := other.Chown(12345, 12345); err != nil {
			t.Fatal(err)
		}
		if a := add(base(other.Name())); a.Code != CodeBadRegion {
			t.Errorf("a file of another user: got %+v, want code %s", a, CodeBadRegion)
		}
	}
}

func TestDescriptorsThatAreRefused(t *testing.T) {
	const size = 64 << 10
	f := serve(t, func(c *Config) { c.MaxPageBytes = 32 << 10 })
	r := f.raw(t)
	if err := f.Attach("acme", r.Challenge); err != nil {
		t.Fatal(err)
	}
	memory := memfd(t, size, seals)
	region := r.say(fmt.Sprintf(`{"op":"add","size":%d}`, size), memory).Region
	page := randomPage(1, 1000)
	write(t, memory, 128, 7, page)
	good := Descriptor{Region: region, Generation: 7, Offset: 128, Length: 1000}
	if got, err := f.read("acme", good.String()); err != nil || !bytes.Equal(got, page) {
		t.Fatalf("a good descriptor: got %d bytes, %v", len(got), err)
	}
	wrong := uint32(1)
	for name, c := range map[string]struct {
		tenant, code string
		change       func(*Descriptor)
	}{
		"another tenant":           {"globex", CodeDenied, func(*Descriptor) {}},
		"unknown region":           {"acme", CodeUnknownRegion, func(d *Descriptor) { d.Region = someRegion }},
		"another generation":       {"acme", CodeStale, func(d *Descriptor) { d.Generation = 6 }},
		"a block of no generation": {"acme", CodeStale, func(d *Descriptor) { d.Offset = 2048 }},
		"wrong checksum":           {"acme", CodeChecksum, func(d *Descriptor) { d.CRC32 = &wrong }},
		"past the end":             {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Offset = size - 1024 }},
		"at the end":               {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Offset = size }},
		"largest offset":           {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Offset = math.MaxInt64 &^ 63 }},
		"sum overflows":            {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Offset, d.Length = math.MaxInt64&^63, 32<<10 }},
		"largest length":           {"acme", transport.CodePageTooLarge, func(d *Descriptor) { d.Length = math.MaxInt64 }},
		"over the page limit":      {"acme", transport.CodePageTooLarge, func(d *Descriptor) { d.Length = 32<<10 + 1 }},
		"reply past the end":       {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Reply = &Room{Offset: 1024, Length: size} }},
		"reply at largest offset":  {"acme", CodeBadDescriptor, func(d *Descriptor) { d.Reply = &Room{Offset: math.MaxInt64 &^ 63, Length: math.MaxInt64} }},
	} {
		d := good
		c.change(&d)
		if got, err := f.read(c.tenant, d.String()); codeOf(err) != c.code || len(got) > 0 {
			t.Errorf("%s: got %d bytes, %v, want code %s", name, len(got), err, c.code)
		}
	}
	// Nothing is written into a room that is in use again.
	d := good
	d.Reply = &Room{Generation: 1, Offset: 8192, Length: 100}
	b, err := f.Open("acme", d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, ok := b.Write([]byte("reply")); ok {
		t.Error("a room of another generation was written to")
	}
	if a := r.say(fmt.Sprintf(`{"op":"drop","region":%q}`, region)); a.Code != "" {
		t.Fatalf("drop: %+v", a)
	}
	if _, err := f.read("acme", good.String()); codeOf(err) != CodeUnknownRegion {
		t.Errorf("after the drop: got %v, want code %s", err, CodeUnknownRegion)
	}
	if _, err := b.Read(); codeOf(err) != CodeUnknownRegion {
		t.Errorf("a block opened before the drop: got %v, want code %s", err, CodeUnknownRegion)
	}
}

func TestTheSocket(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxSenders = 1 })
	if info, err := os.Stat(f.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	f.raw(t)
	second := f.raw(t)
	if second.Challenge != "" {
		t.Error("a sender more than allowed was greeted")
	}
	eventually(t, "the refusal is counted", func() bool { return f.counted(t, CodeLimit) == 1 })
	if _, err := Listen(Config{Socket: f.socket, Instance: "two"}); err == nil {
		t.Error("a second server on the same socket started")
	}

	// What a killed process leaves behind is replaced.
	stale := filepath.Join(t.TempDir(), "stale")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: stale})
		_ = unix.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(c *Config) { c.Socket = stale })
}
