package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// A file is a header and the blob. The header is little-endian:
//
//	 0  magic           8 bytes
//	 8  blob length     uint64
//	16  created         int64, Unix nanoseconds
//	24  expires         int64, Unix nanoseconds, 0 = never
//	32  blob's SHA-256  32 bytes
//	64  tenant length   uint16
//	66  object length   uint16
//	68  tenant, object
//	 n  SHA-256 of everything above
//
// The header checks itself, so a directory is indexed without reading blobs; the blob is checked when it is read.
const (
	magic          = "SEMOBJ1\n"
	fixedHeader    = 68
	maxHeaderBytes = fixedHeader + maxTenantBytes + maxObjectDigits + sha256.Size
)

var errDamaged = errors.New("damaged object file")

// meta is what the header says.
type meta struct {
	key     Key
	size    int64
	created int64 // Unix nanoseconds
	expires int64 // Unix nanoseconds, 0 = never
	sum     [sha256.Size]byte
}

func (m *meta) headerBytes() int {
	return fixedHeader + len(m.key.Tenant) + len(m.key.Object) + sha256.Size
}

func (m *meta) fileBytes() int64 { return int64(m.headerBytes()) + m.size }

func (m *meta) expired(now int64) bool { return m.expires != 0 && now >= m.expires }

func (e *entry) info() Info {
	m := &e.meta
	info := Info{Size: m.size, Created: time.Unix(0, m.created), Version: strconv.FormatUint(e.seq, 16)}
	if m.expires != 0 {
		info.Expires = time.Unix(0, m.expires)
	}
	return info
}

func (m *meta) appendHeader(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.size))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.created))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.expires))
	dst = append(dst, m.sum[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.key.Tenant)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.key.Object)))
	dst = append(dst, m.key.Tenant...)
	dst = append(dst, m.key.Object...)
	own := sha256.Sum256(dst[start:])
	return append(dst, own[:]...)
}

// parseHeader reads a header from the first bytes of a file (at least the header; at most all of it).
func parseHeader(b []byte) (meta, error) {
	var m meta
	if len(b) < fixedHeader || string(b[:len(magic)]) != magic {
		return m, errDamaged
	}
	tenant, object := int(binary.LittleEndian.Uint16(b[64:])), int(binary.LittleEndian.Uint16(b[66:]))
	end := fixedHeader + tenant + object
	if tenant > maxTenantBytes || object > maxObjectDigits || len(b) < end+sha256.Size {
		return m, errDamaged
	}
	if own := sha256.Sum256(b[:end]); !bytes.Equal(own[:], b[end:end+sha256.Size]) {
		return m, errDamaged
	}
	m.size = int64(binary.LittleEndian.Uint64(b[8:]))
	m.created = int64(binary.LittleEndian.Uint64(b[16:]))
	m.expires = int64(binary.LittleEndian.Uint64(b[24:]))
	copy(m.sum[:], b[32:64])
	m.key = Key{string(b[fixedHeader : fixedHeader+tenant]), string(b[fixedHeader+tenant : end])}
	if m.size < 0 || m.key.Validate() != nil {
		return m, errDamaged
	}
	return m, nil
}

// checkBlob reports whether the bytes are the ones that the header describes.
func (m *meta) checkBlob(blob []byte) error {
	if int64(len(blob)) != m.size || sha256.Sum256(blob) != m.sum {
		return errDamaged
	}
	return nil
}
