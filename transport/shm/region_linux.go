package shm

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

// Folder is where files that are used as regions lie; FilePrefix begins their names.
const (
	Folder     = "/dev/shm"
	FilePrefix = "semproxy-"
)

// seals are what a memfd must have: its size is fixed for ever.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// region is memory of one sender.
type region struct {
	tenant string
	file   *os.File // closing it while it is read is safe: reads under way keep it
	size   int64    // when it was attached
	sealed bool     // it keeps that size
	view   *view    // nil: not mapped
}

// close lets go of the region. Reads under way end first, or fail.
func (r *region) close() {
	r.view.close()
	_ = r.file.Close()
}

// readAt fills part from the region's bytes at offset.
func (r *region) readAt(part []byte, offset int64) error {
	if r.view != nil {
		return r.view.read(part, offset)
	}
	_, err := r.file.ReadAt(part, offset)
	return err
}

// openRegion checks the memory that a sender offers, and takes it over. On success the file in files is nil.
func openRegion(d demand, files []*os.File, uid uint32) (*os.File, *transport.Error) {
	if d.Size < BlockHeader {
		return nil, refused(CodeBadRegion, "the region's size must be said, and be at least one block header")
	}
	var file *os.File
	switch {
	case len(files) == 1 && d.File == "":
		file = files[0]
		if err := checkMemfd(file, d.Size); err != nil {
			return nil, err
		}
		files[0] = nil
	case len(files) == 0 && d.File != "":
		var err *transport.Error
		if file, err = openShared(d.File, d.Size, uid); err != nil {
			return nil, err
		}
	default:
		return nil, refused(CodeBadRegion, "pass one file descriptor, or name one file under "+Folder)
	}
	return file, nil
}

// checkMemfd holds that f cannot be cut short and can be read and written.
func checkMemfd(f *os.File, size int64) *transport.Error {
	got, err := fcntl(f, unix.F_GET_SEALS)
	if err != nil {
		return refused(CodeBadRegion, "the file descriptor is not a memfd")
	}
	if got&seals != seals {
		return refused(CodeUnsealed, "the memfd must be sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL")
	}
	flags, err := fcntl(f, unix.F_GETFL)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || flags&(unix.O_PATH|unix.O_APPEND) != 0 {
		return refused(CodeBadRegion, "the memfd must be open for reading and writing, and not for appending")
	}
	return checkFile(f, size)
}

func checkFile(f *os.File, size int64) *transport.Error {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return refused(CodeBadRegion, "the region must be a regular memory file of the size that was said")
	}
	return nil
}

func fcntl(f *os.File, command int) (value int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { value, inner = unix.FcntlInt(fd, command, 0) })
	return value, errors.Join(err, inner)
}

// openShared opens the file of that name under [Folder], which the sender must own. It can be cut short by its owner:
// every read checks for that.
func openShared(name string, size int64, uid uint32) (*os.File, *transport.Error) {
	if !strings.HasPrefix(name, FilePrefix) || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return nil, refused(CodeBadRegion, "the file's name must begin with "+FilePrefix+" and have no slash")
	}
	// Without O_NONBLOCK a FIFO of that name would hold up the sidecar.
	fd, err := unix.Open(filepath.Join(Folder, name), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, refused(CodeBadRegion, "there is no such file under "+Folder+" that this sidecar may read and write")
	}
	f := os.NewFile(uintptr(fd), "region")
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || st.Uid != uid || st.Nlink != 1 {
		_ = f.Close()
		return nil, refused(CodeBadRegion, "the file must be the sender's own, in memory, under one name")
	}
	if e := checkFile(f, size); e != nil {
		_ = f.Close()
		return nil, e
	}
	return f, nil
}

// block is one page of a region. It implements transport.Block.
type block struct {
	server *Server
	region *region
	d      Descriptor
	buffer *[]byte
}

func (b *block) Size() int64 { return b.d.Length }

// chunk is how much is copied before it is summed: it is still in the cache then.
const chunk = 256 << 10

func (b *block) Read() ([]byte, error) {
	if b.buffer != nil {
		return *b.buffer, nil
	}
	if err := b.sameGeneration(b.d.Offset, b.d.Generation); err != nil {
		return nil, err
	}
	b.buffer = b.server.buffers.get(b.d.Length)
	page, sum := *b.buffer, uint32(0)
	for at := 0; at < len(page); at += chunk {
		part := page[at:min(at+chunk, len(page))]
		if err := b.region.readAt(part, b.d.Offset+BlockHeader+int64(at)); err != nil {
			return nil, readError(err)
		}
		if b.d.CRC32 != nil {
			sum = crc32.Update(sum, crc32.IEEETable, part)
		}
	}
	if err := b.sameGeneration(b.d.Offset, b.d.Generation); err != nil {
		return nil, err
	}
	if b.d.CRC32 != nil && sum != *b.d.CRC32 {
		return nil, refused(CodeChecksum, "the page is not what its checksum says")
	}
	return page, nil
}

func (b *block) Write(body []byte) (descriptor string, ok bool) {
	room := b.d.Reply
	if room == nil || int64(len(body)) > room.Length || b.sameGeneration(room.Offset, room.Generation) != nil {
		return "", false
	}
	end := room.Offset + BlockHeader + int64(len(body))
	if info, err := b.region.file.Stat(); err != nil || info.Size() < end {
		return "", false // a write would make the file longer again
	}
	r := Reply{Offset: room.Offset, Length: int64(len(body))}
	if b.d.CRC32 != nil {
		r.CRC32 = new(uint32)
	}
	for at := 0; at < len(body); at += chunk {
		part := body[at:min(at+chunk, len(body))]
		if r.CRC32 != nil {
			*r.CRC32 = crc32.Update(*r.CRC32, crc32.IEEETable, part)
		}
		if _, err := b.region.file.WriteAt(part, room.Offset+BlockHeader+int64(at)); err != nil {
			return "", false
		}
	}
	return r.String(), true
}

func (b *block) Close() {
	if b.buffer != nil {
		b.server.buffers.put(b.buffer)
		b.buffer = nil
	}
}

// sameGeneration holds that the block at offset has not been used again.
func (b *block) sameGeneration(offset int64, generation uint64) error {
	var header [8]byte
	if err := b.region.readAt(header[:], offset); err != nil {
		return readError(err)
	}
	if binary.LittleEndian.Uint64(header[:]) != generation {
		return refused(CodeStale, "the block has been used again since the descriptor was made")
	}
	return nil
}

func readError(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refused(CodeTruncated, "the region is shorter than when it was attached")
	case errors.Is(err, os.ErrClosed):
		return errUnknown
	}
	return refused(CodeBadRegion, "the region cannot be read")
}
