package page

import (
	"encoding/binary"
	"fmt"
	"math"
)

// lanes describes, for 64 bits of one element type, how to see NaN and Inf without widening: an element is not finite
// exactly when all bits of mask are set in it, and then, and only then, adding step to the masked bits carries into the
// element's top bit. The masked bits never carry into a neighbour.
type lanes struct{ mask, step, top uint64 }

func lanesOf(d DType) lanes {
	switch d {
	case F32:
		return lanes{0x7f80_0000_7f80_0000, 0x0080_0000_0080_0000, 0x8000_0000_8000_0000}
	case BF16:
		return lanes{0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000}
	case F16:
		return lanes{0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000}
	case F8E5M2:
		return lanes{0x7c7c_7c7c_7c7c_7c7c, 0x0404_0404_0404_0404, 0x8080_8080_8080_8080}
	default: // F8E4M3 has NaN only, with every bit below the sign set
		return lanes{0x7f7f_7f7f_7f7f_7f7f, 0x0101_0101_0101_0101, 0x8080_8080_8080_8080}
	}
}

// firstNotFinite is the index of the first element of b, a whole number of elements of type d, that is NaN or Inf;
// or -1.
func firstNotFinite(b []byte, d DType) int {
	l, size := lanesOf(d), d.Size()
	at := 0
	for ; at+32 <= len(b); at += 32 { // four words at once: one branch for 32 bytes
		w := b[at : at+32 : at+32]
		s := (binary.LittleEndian.Uint64(w[0:]) & l.mask) + l.step
		s |= (binary.LittleEndian.Uint64(w[8:]) & l.mask) + l.step
		s |= (binary.LittleEndian.Uint64(w[16:]) & l.mask) + l.step
		s |= (binary.LittleEndian.Uint64(w[24:]) & l.mask) + l.step
		if s&l.top != 0 {
			break
		}
	}
	for ; at < len(b); at += size { // the tail, or the 32 bytes that hold the element
		var one [8]byte
		copy(one[:], b[at:at+size])
		if ((binary.LittleEndian.Uint64(one[:])&l.mask)+l.step)&l.top != 0 {
			return at / size
		}
	}
	return -1
}

// checkFinite refuses a tensor [layers, heads, rows, dim] that holds NaN or Inf, and names where.
func checkFinite(name, rowName string, b []byte, d DType, heads, rows, dim int) error {
	i := firstNotFinite(b, d)
	if i < 0 {
		return nil
	}
	row := i / dim
	return refuseNotFinite(name, d, row/(heads*rows), row/rows%heads, rowName, row%rows, i%dim)
}

func refuseNotFinite(name string, d DType, layer, head int, rowName string, row, dim int) error {
	where := fmt.Sprintf("NaN or Inf at layer %d, head %d, %s %d, dim %d", layer, head, rowName, row, dim)
	return refuse(CodeNotFinite, fmt.Sprintf("tensor %q is not finite", name), where, "finite "+d.String())
}

// checkScales refuses F32 scales [layers, heads] that are not finite and positive.
func checkScales(name string, b []byte, heads int) error {
	for i := 0; i < len(b)/4; i++ {
		if s := float32At(b, i); !(s > 0) || math.IsInf(float64(s), 0) {
			return refuse(CodeBadScale, fmt.Sprintf("tensor %q has an unusable scale at layer %d, head %d", name, i/heads, i%heads), s, "finite and positive")
		}
	}
	return nil
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}

func int32At(b []byte, i int) int32 { return int32(binary.LittleEndian.Uint32(b[4*i:])) }
