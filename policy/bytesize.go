package policy

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes, written as 256MiB, 20Gi, 1.5GB or a plain number.
type ByteSize int64

// ByteSizePattern is the regular expression of a written ByteSize, for the schema.
const ByteSizePattern = `^[0-9]+(\.[0-9]+)?(B|KB|MB|GB|TB|Ki|Mi|Gi|Ti|KiB|MiB|GiB|TiB)?$`

// byteUnits are tried from the front when a size is written, so the binary ones come first, largest first.
var byteUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

var errByteSize = errors.New("must be a size such as 256MiB or 20GiB")

// UnmarshalText reads a size of at least one byte. Fractions must give whole bytes.
func (b *ByteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = rest, u.size
			break
		}
	}
	if !digits(number) {
		return errByteSize
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 1 || n > math.MaxInt64/unit {
			return errByteSize
		}
		*b = ByteSize(n * unit)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if f *= float64(unit); err != nil || f != math.Trunc(f) || f < 1 || f >= math.MaxInt64 {
		return errByteSize
	}
	*b = ByteSize(f)
	return nil
}

// digits reports whether s is a decimal number such as 12 or 1.5, without sign or exponent.
func digits(s string) bool {
	whole, fraction, dotted := strings.Cut(s, ".")
	only := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return only(whole) && (!dotted || only(fraction))
}

// String writes the size with the largest binary unit that divides it.
func (b ByteSize) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText writes what UnmarshalText reads.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
