package page

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendBlob writes a blob that the safetensors library reads, and that is byte for byte what the library writes, but
// for the order of the metadata (sorted here, random there): tensors by falling element rank, then by name; the header
// padded with spaces to a multiple of 8 bytes. With checksum, the metadata gets the body's. On an error dst is returned
// as it was.
func appendBlob(dst []byte, meta map[string]string, tensors []tensor, checksum bool) ([]byte, error) {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b tensor) int {
		if a.elem.rank != b.elem.rank {
			return b.elem.rank - a.elem.rank
		}
		return strings.Compare(a.name, b.name)
	})
	body := 0
	for _, t := range tensors {
		if err := t.check(); err != nil {
			return dst, err
		}
		body += len(t.data)
	}
	if checksum {
		meta[checksumKey] = sumTensors(tensors)
	}
	if err := checkMetadata(meta); err != nil {
		return dst, err
	}
	header := appendHeader(nil, meta, tensors)
	if most := DefaultLimits().MaxHeader; len(header) > most {
		return dst, refuse(CodeTooLarge, "the header is too large", fmt.Sprintf("%d bytes", len(header)), fmt.Sprintf("at most %d", most))
	}
	dst = slices.Grow(dst, prefixBytes+len(header)+body)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(header)))
	dst = append(dst, header...)
	for _, t := range tensors {
		dst = append(dst, t.data...)
	}
	return dst, nil
}

// check compares a tensor's bytes with its shape.
func (t *tensor) check() error {
	want, ok := product(append([]int{t.elem.size}, t.shape...)...)
	if !ok || want != len(t.data) {
		return refuse(CodeBadShape, fmt.Sprintf("tensor %q does not fill its shape %v of %s", t.name, t.shape, t.elem.name), fmt.Sprintf("%d bytes", len(t.data)), fmt.Sprintf("%d bytes", want))
	}
	return nil
}

func checkMetadata(meta map[string]string) error {
	if len(meta) > maxMetaKeys {
		return refuse(CodeTooLarge, "the metadata has too many keys", len(meta), fmt.Sprintf("at most %d", maxMetaKeys))
	}
	for key, value := range meta {
		switch {
		case len(key) > maxKeyBytes || len(value) > maxValueBytes:
			return refuse(CodeTooLarge, "metadata "+quote(key)+" is too long", fmt.Sprintf("%d and %d bytes", len(key), len(value)), fmt.Sprintf("a key of at most %d, a value of at most %d", maxKeyBytes, maxValueBytes))
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return refuse(CodeBadMetadata, "metadata "+quote(key)+" is no text", "bytes that are no UTF-8", "UTF-8")
		}
	}
	return nil
}

func appendHeader(b []byte, meta map[string]string, tensors []tensor) []byte {
	b = append(b, `{"`+metadataKey+`":{`...)
	for i, key := range slices.Sorted(maps.Keys(meta)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		b = appendString(b, meta[key])
	}
	b = append(b, '}')
	at := 0
	for _, t := range tensors {
		b = appendString(append(b, ','), t.name)
		b = append(b, `:{"dtype":"`+t.elem.name+`","shape":[`...)
		for i, n := range t.shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, int64(at), 10)
		at += len(t.data)
		b = strconv.AppendInt(append(b, ','), int64(at), 10)
		b = append(b, `]}`...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	return b
}

// appendString writes a JSON string, escaping no more than JSON demands, as the library does.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		default:
			if at := strings.IndexByte("\b\t\n\f\r", c); at >= 0 {
				b = append(b, '\\', "btnfr"[at])
			} else {
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
		}
	}
	return append(b, '"')
}

const checksumKey = "checksum"

// sumTensors is the checksum of a body: SHA-256 over the tensors' bytes in their order, in lower-case hex.
func sumTensors(tensors []tensor) string {
	h := sha256.New()
	for _, t := range tensors {
		h.Write(t.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// verify compares a body with the checksum that its metadata claims.
func verify(body []byte, claim string) error {
	sum := sha256.Sum256(body)
	if got := hex.EncodeToString(sum[:]); got != claim {
		return refuse(CodeBadChecksum, `metadata "checksum" does not match the bytes`, got, quote(claim))
	}
	return nil
}
