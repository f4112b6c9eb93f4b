package redis

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/semproxy/semproxy/store"
)

var (
	errNoManifest = errors.New("no manifest")
	errDamaged    = errors.New("damaged object")
)

// manifest says what an object is made of. It checks itself: its digest covers every field, the tenant and the object,
// so that a manifest that was changed or moved is worth nothing.
type manifest struct {
	version string // of the tiles' names, random
	seq     int64  // place in the tenant's account
	size    int64  // bytes of the blob
	tile    int64  // bytes of every tile but the last; 0: the blob is in the manifest's hash
	kind    Sum
	sums    []byte // the tiles' digests, one after the other; the blob's, if there are no tiles
	created int64  // Unix milliseconds
	expires int64  // Unix milliseconds by the writer's clock, 0 = never; Redis's own TTL decides
}

// fields are the names in the hash, in the order of values.
var fields = []string{"version", "seq", "size", "tile", "kind", "sums", "created", "expires", "check"}

const digestBytes = 16 // of a tile's SHA-256 and of the manifest's own

// blobField holds a blob of at most one tile, so that reading it is one round trip.
const blobField = "blob"

// tripBytes is how much of an object is sent or asked for at once.
const tripBytes = 1 << 20

// perTrip is the number of tiles that are sent or asked for at once.
func (m *manifest) perTrip() int {
	const most = 64
	return int(min(most, max(1, tripBytes/max(1, m.tile))))
}

func (m *manifest) inline() bool { return m.tile == 0 }

// tiles is the number of values beside the manifest.
func (m *manifest) tiles() int {
	if m.inline() {
		return 0
	}
	return int((m.size + m.tile - 1) / m.tile)
}

// parts is the number of digests.
func (m *manifest) parts() int {
	if m.inline() {
		return 1
	}
	return m.tiles()
}

// span is where part i lies in the blob.
func (m *manifest) span(i int) (from, to int64) {
	if m.inline() {
		return 0, m.size
	}
	from = int64(i) * m.tile
	return from, min(from+m.tile, m.size)
}

func (m *manifest) info() store.Info {
	info := store.Info{Size: m.size, Created: time.UnixMilli(m.created), Version: m.version}
	if m.expires != 0 {
		info.Expires = time.UnixMilli(m.expires)
	}
	return info
}

func (m *manifest) check(object string) string {
	h := sha256.New()
	for _, s := range []string{"semproxy.redis.1", object, m.version, string(m.kind), string(m.sums)} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, n := range []int64{m.seq, m.size, m.tile, m.created, m.expires} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:digestBytes])
}

// values are the fields with their values, as HSET wants them.
func (m *manifest) values(object string) []any {
	v := []any{m.version, m.seq, m.size, m.tile, string(m.kind), m.sums, m.created, m.expires, m.check(object)}
	all := make([]any, 0, 2*len(v))
	for i, name := range fields {
		all = append(all, name, v[i])
	}
	return all
}

// parseManifest reads what HMGET gave for fields.
func parseManifest(object string, values []any) (*manifest, error) {
	if len(values) != len(fields) {
		return nil, errDamaged
	}
	text := make([]string, len(values))
	missing := 0
	for i, v := range values {
		s, ok := v.(string)
		if !ok {
			missing++
		}
		text[i] = s
	}
	if missing == len(values) {
		return nil, errNoManifest
	}
	m := &manifest{version: text[0], kind: Sum(text[4]), sums: []byte(text[5])}
	for i, dst := range map[int]*int64{1: &m.seq, 2: &m.size, 3: &m.tile, 6: &m.created, 7: &m.expires} {
		n, err := strconv.ParseInt(text[i], 10, 64)
		if err != nil {
			return m, errDamaged
		}
		*dst = n
	}
	if missing > 0 || m.check(object) != text[8] || m.size < 0 || m.tile < 0 || m.tile > maxTileBytes ||
		len(m.sums) != m.parts()*m.kind.bytes() {
		return m, errDamaged
	}
	return m, nil
}

// bytes is the length of one tile's digest.
func (s Sum) bytes() int {
	if s == CRC32C {
		return 4
	}
	return digestBytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// of writes the tile's digest to dst, which has room for exactly one.
func (s Sum) of(dst, tile []byte) {
	if s == CRC32C {
		binary.LittleEndian.PutUint32(dst, crc32.Checksum(tile, castagnoli))
		return
	}
	sum := sha256.Sum256(tile)
	copy(dst, sum[:])
}

// ofAll is the digests of every part of the blob.
func (m *manifest) ofAll(blob []byte) []byte {
	n := m.kind.bytes()
	sums := make([]byte, n*m.parts())
	for i := range m.parts() {
		from, to := m.span(i)
		m.kind.of(sums[n*i:n*(i+1)], blob[from:to])
	}
	return sums
}

// matches reports whether tile is what was written as part i.
func (m *manifest) matches(i int, tile []byte) bool {
	n := m.kind.bytes()
	var got [digestBytes]byte
	m.kind.of(got[:n], tile)
	return bytes.Equal(got[:n], m.sums[n*i:n*(i+1)])
}

// holds reports whether blob is the object's content.
func (m *manifest) holds(blob []byte) bool {
	return m.size == int64(len(blob)) && bytes.Equal(m.ofAll(blob), m.sums)
}
