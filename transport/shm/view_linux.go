package shm

import (
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// view is a region mapped into this process: copying out of it costs less than half of pread. Only a memfd that is sealed
// against being cut short is mapped, because reading behind the end of a mapped file kills a process. A nil view is one that
// could not be made.
type view struct {
	mu   sync.RWMutex // held for writing to unmap: nobody copies then
	data []byte       // nil once it is closed
}

// mapView maps size bytes of f, which must be sealed.
func mapView(f *os.File, size int64, writable bool) *view {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	protection := unix.PROT_READ
	if writable {
		protection |= unix.PROT_WRITE
	}
	v := &view{}
	_ = raw.Control(func(fd uintptr) {
		// Not huge pages of their own kind (hugetlbfs): the system can run out of those while they are read.
		var fs unix.Statfs_t
		if unix.Fstatfs(int(fd), &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
			v.data, _ = unix.Mmap(int(fd), 0, int(size), protection, unix.MAP_SHARED)
		}
	})
	if v.data == nil {
		return nil
	}
	return v
}

// read fills part from the bytes at offset, and write is its inverse. The range must lie in the region. Memory that the system
// cannot provide is an error, not the end of the process.
func (v *view) read(part []byte, offset int64) error { return v.copy(part, offset, false) }

func (v *view) write(part []byte, offset int64) error { return v.copy(part, offset, true) }

func (v *view) copy(part []byte, offset int64, in bool) (err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.data == nil {
		return os.ErrClosed
	}
	data := v.data[offset:][:len(part)]
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = unix.EFAULT
		}
	}()
	if in {
		copy(data, part)
	} else {
		copy(part, data)
	}
	return nil
}

func (v *view) close() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.data != nil {
		_ = unix.Munmap(v.data)
		v.data = nil
	}
}
