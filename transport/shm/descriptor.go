package shm

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// BlockHeader is how many bytes of a block come before its content: the generation, a little-endian uint64, then zeros.
// Blocks begin at multiples of it.
const BlockHeader = 64

// maxDescriptor bounds the text of a descriptor, bytes.
const maxDescriptor = 1024

// Descriptor names a block with a page, and the block where the reply may go.
type Descriptor struct {
	Region     string  `json:"region"`          // as the sidecar named it
	Generation uint64  `json:"generation"`      // what the block's header says while its content is whole
	Offset     int64   `json:"offset"`          // of the block in the region, bytes
	Length     int64   `json:"length"`          // of the content, bytes
	CRC32      *uint32 `json:"crc32,omitempty"` // IEEE, of the content; absent: not checked
	Reply      *Room   `json:"reply,omitempty"` // absent: the reply goes over NATS
}

// Room is a block set aside for a reply; Length is the most that fits.
type Room struct {
	Generation uint64 `json:"generation"`
	Offset     int64  `json:"offset"`
	Length     int64  `json:"length"`
}

// Reply describes a reply in its block.
type Reply struct {
	Offset int64   `json:"offset"`
	Length int64   `json:"length"`
	CRC32  *uint32 `json:"crc32,omitempty"` // there if the page's descriptor has one
}

// ParseDescriptor reads a descriptor. It checks what can be known without the region; the error has the code
// [CodeBadDescriptor].
func ParseDescriptor(text string) (d Descriptor, err error) {
	if err := parse(text, &d); err != nil {
		return Descriptor{}, err
	}
	if !validID(d.Region) {
		return Descriptor{}, refused(CodeBadDescriptor, "the descriptor's region must be a name that the sidecar gave")
	}
	if err := checkBlock(d.Offset, d.Length); err != nil {
		return Descriptor{}, err
	}
	if d.Reply != nil {
		if err := checkBlock(d.Reply.Offset, d.Reply.Length); err != nil {
			return Descriptor{}, err
		}
	}
	return d, nil
}

// ParseReply reads the description of a reply that may take at most room bytes. The error has the code [CodeBadDescriptor].
func ParseReply(text string, room Room) (r Reply, err error) {
	if err := parse(text, &r); err != nil {
		return Reply{}, err
	}
	if r.Offset != room.Offset || r.Length < 0 || r.Length > room.Length {
		return Reply{}, refused(CodeBadDescriptor, "the reply is not in the block that was set aside for it")
	}
	return r, nil
}

// parse is strict: one JSON object, no unknown field, nothing after it.
func parse(text string, into any) error {
	if len(text) > maxDescriptor {
		return refused(CodeBadDescriptor, fmt.Sprintf("a descriptor is at most %d bytes", maxDescriptor))
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refused(CodeBadDescriptor, "the descriptor is not the JSON object that docs/reference/page-plane.md describes")
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // the decoder returns it bare
		return refused(CodeBadDescriptor, "something follows the descriptor")
	}
	return nil
}

// String is the descriptor's text, which [ParseDescriptor] reads.
func (d Descriptor) String() string { return encode(d) }

// String is the reply's text, which [ParseReply] reads.
func (r Reply) String() string { return encode(r) }

func encode(v any) string {
	text, _ := json.Marshal(v) // numbers and texts only: it cannot fail
	return string(text)
}

func checkBlock(offset, length int64) error {
	if offset < 0 || offset%BlockHeader != 0 || length < 0 {
		return refused(CodeBadDescriptor, fmt.Sprintf("a block's offset must be a multiple of %d, and its length must not be negative", BlockHeader))
	}
	return nil
}

// inside reports whether a block with length bytes of content lies in a region of size bytes. It cannot overflow.
func inside(offset, length, size int64) bool {
	return size >= BlockHeader && offset >= 0 && length >= 0 && length <= size-BlockHeader && offset <= size-BlockHeader-length
}

// blockHeader is what stands before the content of a block of that generation.
func blockHeader(generation uint64) []byte {
	var h [BlockHeader]byte
	binary.LittleEndian.PutUint64(h[:], generation)
	return h[:]
}
