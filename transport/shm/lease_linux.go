package shm

import (
	"hash/crc32"
	"sync"
)

// Lease is a page in shared memory and the room for its reply.
type Lease struct {
	session *Session
	area    *area
	in, out span
	d       Descriptor
	once    sync.Once
}

// Descriptor is the value of the request's header.
func (l *Lease) Descriptor() string { return l.d.String() }

// Reply copies the reply out that text, the value of the reply's header, describes. The bytes are the caller's.
func (l *Lease) Reply(text string) ([]byte, error) {
	r, err := ParseReply(text, *l.d.Reply)
	if err != nil {
		return nil, err
	}
	body := make([]byte, r.Length)
	if err := l.area.readAt(body, r.Offset+BlockHeader); err != nil {
		return nil, readError(err)
	}
	if r.CRC32 != nil && crc32.ChecksumIEEE(body) != *r.CRC32 {
		return nil, refused(CodeChecksum, "the reply is not what its checksum says")
	}
	return body, nil
}

// Release ends the lease of a request that was answered: the blocks may be used again.
func (l *Lease) Release() { l.end(false) }

// Abandon ends the lease of a request whose answer did not come: the sidecar may still read the page and write the reply,
// so nothing of the region is used again.
func (l *Lease) Abandon() { l.end(true) }

func (l *Lease) end(uncertain bool) {
	l.once.Do(func() {
		if uncertain {
			l.session.condemn(l.area)
		}
		l.session.give(l.area, l.in)
		l.session.give(l.area, l.out)
	})
}

func (l *Lease) write(generation uint64, offset int64, content []byte) error {
	if err := l.area.writeAt(blockHeader(generation), offset); err != nil {
		return err
	}
	return l.area.writeAt(content, offset+BlockHeader)
}
