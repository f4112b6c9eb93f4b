package planebench

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/shm"
)

const (
	rawPread = "raw pread"
	rawWrite = "raw pwrite and pread"
)

// memoryPaths are those through shared memory.
func memoryPaths() []path {
	return []path{
		{name: rawPread, open: func(_ context.Context, _ *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openPread(size, workers, false)
		}},
		{name: "shared memory, page in place", raw: rawPread, open: func(ctx context.Context, e *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openInPlace(ctx, e, size, workers, false)
		}},
		{name: "shared memory, page in place, crc32", raw: rawPread, open: func(ctx context.Context, e *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openInPlace(ctx, e, size, workers, true)
		}},
		{name: rawWrite, open: func(_ context.Context, _ *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openPread(size, workers, true)
		}},
		{name: "shared memory, Go client", raw: rawWrite, open: func(_ context.Context, e *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openShared(e, size, workers, false)
		}},
		{name: "shared memory, Go client, crc32", raw: rawWrite, open: func(_ context.Context, e *env, size, workers int) (func(context.Context, int) error, func(), error) {
			return openShared(e, size, workers, true)
		}},
	}
}

// openPread copies pages out of a memfd, each worker its own into its own buffer; write copies them in before.
func openPread(size, workers int, write bool) (func(context.Context, int) error, func(), error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "bench")
	page := randomPage(size)
	buffers := make([][]byte, workers)
	for w := range buffers {
		buffers[w] = make([]byte, size)
		if _, err := f.WriteAt(page, int64(w*size)); err != nil {
			_ = f.Close()
			return nil, nil, err
		}
	}
	return func(_ context.Context, w int) error {
		if write {
			if _, err := f.WriteAt(page, int64(w*size)); err != nil {
				return err
			}
		}
		_, err := f.ReadAt(buffers[w], int64(w*size))
		return err
	}, func() { _ = f.Close() }, nil
}

// region holds what workers have under way: a page, and the room that the Go client sets aside for its reply.
func region(size, workers int) int64 { return int64(workers)*int64(2*size+size/4+(1<<18)) + 1<<20 }

// openInPlace sends descriptors of pages that lie in shared memory already, as an engine's do that writes them there.
func openInPlace(ctx context.Context, e *env, size, workers int, checksum bool) (func(context.Context, int) error, func(), error) {
	nc, err := e.dial()
	if err != nil {
		return nil, nil, err
	}
	session, err := shm.Dial(ctx, shm.Options{Socket: e.socket(), RegionBytes: region(size, workers), Checksum: checksum},
		func(ctx context.Context, name, challenge string) error {
			m, err := nc.RequestWithContext(ctx, "kv."+acks+".v1.attach."+name, []byte(challenge))
			if err == nil && m.Header.Get(transport.HeaderStatus) != transport.StatusOK {
				err = errors.New(string(m.Data))
			}
			return err
		})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	closed := func() { session.Close(); nc.Close() }
	leases := make([]*shm.Lease, workers)
	page := randomPage(size)
	for w := range leases {
		if leases[w], err = session.Put(page, int64(len(acknowledgement))); err != nil {
			closed()
			return nil, nil, err
		}
	}
	return func(ctx context.Context, w int) error {
		m, err := session.Exchange(ctx, leases[w], nats.Header{})
		if err == nil && m.Header.Get(transport.HeaderMemory) == "" {
			err = fmt.Errorf("%w: %s %s", errNotShared, m.Header.Get(transport.HeaderCode), m.Data)
		}
		return err
	}, closed, nil
}

// openShared is the Go client as programs use it: each page is written into shared memory, too.
func openShared(e *env, size, workers int, checksum bool) (func(context.Context, int) error, func(), error) {
	c, err := e.client(acks, shm.Options{Socket: e.socket(), RegionBytes: region(size, workers), Checksum: checksum})
	if err != nil {
		return nil, nil, err
	}
	page := randomPage(size)
	return func(ctx context.Context, _ int) error {
		r, err := c.Compress(ctx, page)
		if err == nil && !r.Shared {
			err = errNotShared
		}
		return err
	}, c.Close, nil
}
