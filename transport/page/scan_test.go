package page

import (
	"encoding/binary"
	"math"
	"testing"
)

// notFinite widens one element, independently of the scan, by the definitions of the formats.
func notFinite(d DType, bits uint32) bool {
	switch d {
	case F32:
		f := float64(math.Float32frombits(bits))
		return math.IsNaN(f) || math.IsInf(f, 0)
	case BF16: // the upper half of an F32
		f := float64(math.Float32frombits(bits << 16))
		return math.IsNaN(f) || math.IsInf(f, 0)
	case F16:
		return bits>>10&31 == 31
	case F8E5M2:
		return bits>>2&31 == 31
	default: // F8E4M3: exponent 15 is a number, but for mantissa 7
		return bits>>3&15 == 15 && bits&7 == 7
	}
}

func putBits(b []byte, d DType, i int, bits uint32) {
	switch d.Size() {
	case 1:
		b[i] = byte(bits)
	case 2:
		binary.LittleEndian.PutUint16(b[2*i:], uint16(bits))
	case 4:
		binary.LittleEndian.PutUint32(b[4*i:], bits)
	}
}

// Every value of the narrow types, and every exponent with edge mantissas of F32, at a place in a word and in the tail.
func TestScanKnowsEveryBitPattern(t *testing.T) {
	for _, d := range allDTypes {
		t.Run(d.String(), func(t *testing.T) {
			var values []uint32
			if d == F32 {
				for exponent := range uint32(512) { // with the sign
					values = append(values, exponent<<23, exponent<<23|1, exponent<<23|0x400000, exponent<<23|0x7fffff)
				}
			} else {
				for v := range uint32(1) << (8 * d.Size()) {
					values = append(values, v)
				}
			}
			const n = 35 // one round of four words at least, and a tail
			b := make([]byte, n*d.Size())
			for _, v := range values {
				for _, at := range []int{1, n - 1} {
					putBits(b, d, at, v)
					want := -1
					if notFinite(d, v) {
						want = at
					}
					if got := firstNotFinite(b, d); got != want {
						t.Fatalf("bits %#x at %d: got %d, want %d", v, at, got, want)
					}
					putBits(b, d, at, 0)
				}
			}
		})
	}
}

func TestScanFindsTheFirstAtEveryLengthAndPlace(t *testing.T) {
	inf := map[DType]uint32{BF16: 0x7f80, F16: 0xfc00, F32: 0x7fc00000, F8E4M3: 0xff, F8E5M2: 0x7c}
	for _, d := range allDTypes {
		for n := range 70 {
			b := pattern(d, n, 9)
			if got := firstNotFinite(b, d); got != -1 {
				t.Fatalf("%v, %d finite elements: got %d, want -1", d, n, got)
			}
			for at := n - 1; at >= 0; at-- { // everything from at on is Inf
				putBits(b, d, at, inf[d])
				if got := firstNotFinite(b, d); got != at {
					t.Fatalf("%v, %d elements, Inf from %d: got %d", d, n, at, got)
				}
			}
		}
	}
}
