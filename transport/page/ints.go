package page

import "encoding/binary"

// Ints is a read-only view of a little-endian I32 or I64 tensor, wherever it lies: the bytes need no alignment.
// A view of a decoded blob aliases the blob. The zero value holds nothing.
type Ints struct {
	b    []byte
	wide bool // I64
}

// IntsOf encodes values as I32.
func IntsOf(values []int32) Ints {
	b := make([]byte, 0, 4*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return Ints{b: b}
}

// Ints64Of encodes values as I64.
func Ints64Of(values []int64) Ints {
	b := make([]byte, 0, 8*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return Ints{b: b, wide: true}
}

// Len is the number of values.
func (v Ints) Len() int { return len(v.b) / v.element().size }

// At is value i, counted from 0. It panics when i is out of range, as a slice does.
func (v Ints) At(i int) int64 {
	if v.wide {
		return int64(binary.LittleEndian.Uint64(v.b[8*i:]))
	}
	return int64(int32(binary.LittleEndian.Uint32(v.b[4*i:])))
}

func (v Ints) element() element {
	if v.wide {
		return elemI64
	}
	return elemI32
}
