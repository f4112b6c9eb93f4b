package shm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attached makes a region of a hand-made sender.
func (f *fixture) attached(t *testing.T, tenant string, memory *os.File, file bool) (region string) {
	t.Helper()
	r := f.raw(t)
	if err := f.Attach(tenant, r.Challenge); err != nil {
		t.Fatal(err)
	}
	info, err := memory.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if file {
		a = r.say(fmt.Sprintf(`{"op":"add","size":%d,"file":%q}`, info.Size(), filepath.Base(memory.Name())))
	} else {
		a = r.say(fmt.Sprintf(`{"op":"add","size":%d}`, info.Size()), memory)
	}
	if a.Code != "" {
		t.Fatalf("add: %+v", a)
	}
	return a.Region
}

func TestASealedMemfdCannotBeCutShort(t *testing.T) {
	f := serve(t, nil)
	memory := memfd(t, 64<<10, seals)
	region := f.attached(t, "acme", memory, false)
	for _, size := range []int64{0, 100, 128 << 10} {
		if err := memory.Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: got %v, want %v", size, err, unix.EPERM)
		}
	}
	write(t, memory, 0, 1, []byte("page"))
	if got, err := f.read("acme", Descriptor{Region: region, Generation: 1, Length: 4}.String()); err != nil || string(got) != "page" {
		t.Errorf("got %q, %v, want the page", got, err)
	}
}

// The sender cuts its file short, and makes it longer again with zeros, while the sidecar reads: no crash, no wrong bytes.
func TestTruncationUnderTheReader(t *testing.T) {
	const size, rounds = 4 << 20, 300
	f := serve(t, nil)
	memory := shared(t, size)
	region := f.attached(t, "acme", memory, true)
	page := randomPage(1, size-2*BlockHeader)
	sum := crc32.ChecksumIEEE(page)
	d := Descriptor{Region: region, Generation: 1, Length: int64(len(page)), CRC32: &sum, Reply: &Room{Offset: 0, Generation: 1, Length: int64(len(page))}}

	whole := append(blockHeader(1), page...)
	write(t, memory, 0, 1, page)
	var stop atomic.Bool
	var reads atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for rng := rand.New(rand.NewPCG(1, 1)); !stop.Load(); {
			for n := reads.Load(); reads.Load() == n && !stop.Load(); { // some reads meet a whole page
				runtime.Gosched()
			}
			_ = memory.Truncate(rng.Int64N(size))
			_ = memory.Truncate(size)
			_, _ = memory.WriteAt(whole, 0)
		}
	}()
	codes := map[string]int{}
	for range rounds {
		b, err := f.Open("acme", d.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Read()
		if err == nil && !bytes.Equal(got, page) {
			t.Fatal("wrong bytes were taken for the page")
		}
		codes[codeOf(err)]++
		reads.Add(1)
		_, _ = b.Write(page[:1000])
		b.Close()
	}
	stop.Store(true)
	<-ended
	for code := range codes {
		switch code {
		case "", CodeTruncated, CodeStale, CodeChecksum:
		default:
			t.Errorf("code %q: want one of %s, %s, %s", code, CodeTruncated, CodeStale, CodeChecksum)
		}
	}
	t.Logf("%d reads: %v", rounds, codes)

	if codes[""] == 0 || codes[""] == rounds {
		t.Errorf("reads of a whole page: got %d of %d, want some", codes[""], rounds)
	}
	if err := memory.Truncate(100); err != nil {
		t.Fatal(err)
	}
	if _, err := f.read("acme", d.String()); codeOf(err) != CodeTruncated {
		t.Errorf("a file that stays short: got %v, want code %s", err, CodeTruncated)
	}
	b, err := f.Open("acme", d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, ok := b.Write(page); ok {
		t.Error("a reply was written past the end of a file")
	}
	if info, err := memory.Stat(); err != nil || info.Size() != 100 {
		t.Errorf("size of the file: got %d, want 100", info.Size())
	}
	d.CRC32 = nil
	if _, err := f.Open("acme", d.String()); codeOf(err) != CodeBadDescriptor {
		t.Errorf("a page in a file without checksum: got %v, want code %s", err, CodeBadDescriptor)
	}
}

// The sender uses a block again while the sidecar reads it: the old descriptor never gives the new bytes.
func TestABlockThatIsUsedAgainUnderTheReader(t *testing.T) {
	const length = 1 << 20
	f := serve(t, nil)
	memory := memfd(t, 2<<20, seals)
	region := f.attached(t, "acme", memory, false)
	var current atomic.Uint64
	use := func(generation uint64) {
		content := bytes.Repeat([]byte{byte(generation)}, length)
		_, _ = memory.WriteAt(blockHeader(generation), 0) // the generation before the content
		_, _ = memory.WriteAt(content, BlockHeader)
		current.Store(generation)
	}
	use(1)
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for g := uint64(2); !stop.Load(); g++ {
			use(g)
		}
	}()
	whole, stale := 0, 0
	for range 500 {
		g := current.Load()
		got, err := f.read("acme", Descriptor{Region: region, Generation: g, Length: length}.String())
		switch {
		case codeOf(err) == CodeStale:
			stale++
		case err != nil:
			t.Fatal(err)
		default:
			whole++
			if want := bytes.Repeat([]byte{byte(g)}, length); !bytes.Equal(got, want) {
				t.Fatalf("generation %d: got bytes of another", g)
			}
		}
	}
	stop.Store(true)
	<-ended
	if stale == 0 {
		t.Error("no read met a block that was used again")
	}
	t.Logf("%d reads whole, %d stale", whole, stale)
}

func init() {
	children["sender"] = childSender
	children["parent"] = childParent
}

// childSender attaches a region with a page, prints the descriptor and waits to be killed.
func childSender() int {
	s, err := Dial(context.Background(), Options{Socket: os.Getenv("SHM_SOCKET"), RegionBytes: 8 << 20}, tellParent)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		l, err := s.Put(randomPage(9, 1<<20), 1<<20)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(l.Descriptor())
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return 1
		}
		l.Release()
	}
}

// tellParent gives the challenge to the test, which stands in for NATS, and waits for its word.
func tellParent(_ context.Context, _, challenge string) error {
	fmt.Println(challenge)
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// childParent starts a process that holds its socket, and ends: only its pid tells.
func childParent() int {
	s, err := Dial(context.Background(), Options{Socket: os.Getenv("SHM_SOCKET"), RegionBytes: 1 << 20}, tellParent)
	if err != nil {
		return 1
	}
	if _, err := s.Put([]byte("page"), 0); err != nil {
		return 1
	}
	held, err := s.conn.File()
	if err != nil {
		return 1
	}
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{held}
	if err := cmd.Start(); err != nil {
		return 1
	}
	fmt.Println(cmd.Process.Pid)
	return 0
}

// child is a process of this program.
type child struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Scanner
}

func (f *fixture) child(t *testing.T, name string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), childEnv+"="+name, "SHM_SOCKET="+f.socket)
	c.Stderr = os.Stderr
	read, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.in = read, in
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	t.Cleanup(func() {
		in.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	c.out = bufio.NewScanner(out)
	if err := f.Attach("acme", c.line(t)); err != nil {
		t.Fatal(err)
	}
	c.next(t)
	return c
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatal("the child said nothing")
	}
	return c.out.Text()
}

func (c *child) next(t *testing.T) {
	t.Helper()
	if _, err := c.in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
}

func TestAKilledSendersRegionsAreReclaimed(t *testing.T) {
	f := serve(t, nil)
	want := randomPage(9, 1<<20)
	for round := range 5 {
		c := f.child(t, "sender")
		descriptor := c.line(t)
		if got, err := f.read("acme", descriptor); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("before the kill: got %d bytes, %v", len(got), err)
		}
		if f.usage().regions != 1 {
			t.Fatalf("regions: got %d, want 1", f.usage().regions)
		}
		b, err := f.Open("acme", descriptor)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, func() { _ = c.Process.Signal(syscall.SIGKILL) })
		for codeOf(err) == "" { // reads until the region is gone
			b.Close()
			var got []byte
			if got, err = b.Read(); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("round %d: wrong bytes from a killed sender", round)
			}
		}
		if codeOf(err) != CodeUnknownRegion {
			t.Errorf("after the kill: got %v, want code %s", err, CodeUnknownRegion)
		}
		b.Close()
		eventually(t, "the regions are reclaimed", func() bool { return f.usage() == usage{} })
	}
	eventually(t, "the file descriptors are closed", func() bool { return openRegions(t) == 0 })
}

// openRegions counts the memfds that this process has open.
func openRegions(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(to, "memfd:semproxy") {
			n++
		}
	}
	return n
}

func TestASenderWhoseProcessIsGoneEndsAlthoughAnotherHoldsItsSocket(t *testing.T) {
	f := serve(t, nil)
	c := f.child(t, "parent")
	holder, err := strconv.Atoi(strings.TrimSpace(c.line(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(holder, syscall.SIGKILL) }()
	if f.usage().regions != 1 {
		t.Errorf("regions: got %d, want 1", f.usage().regions)
	}
	_ = c.Wait()
	eventually(t, "the region is reclaimed", func() bool { return f.usage() == usage{} })
}

func TestWhenTheSidecarEndsTheSessionSaysSo(t *testing.T) {
	f := serve(t, nil)
	s := f.dial(t, "acme", Options{})
	l, err := s.Put([]byte("page"), 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Ended():
	case <-time.After(patience):
		t.Fatal("the session did not end")
	}
	l.Abandon()
	if _, err := s.Put([]byte("page"), 10); err == nil {
		t.Error("a page was laid for a sidecar that is gone")
	}
	if _, err := Dial(t.Context(), Options{Socket: f.socket}, nil); err == nil {
		t.Error("dial: got a session, want an error")
	}
	if _, err := os.Stat(f.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's file: got %v, want it removed", err)
	}
}
