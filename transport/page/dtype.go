package page

import "fmt"

// DType is the element type of K, V and Q. Its zero value is no type.
type DType uint8

// The element types of a page.
const (
	BF16   DType = iota + 1 // 1 sign, 8 exponent, 7 mantissa bits
	F16                     // IEEE binary16
	F32                     // IEEE binary32
	F8E4M3                  // the "FN" kind: no infinity, NaN is 0x7F and 0xFF
	F8E5M2                  // IEEE-like: infinities and NaN
)

// element is what the format knows of a safetensors element type.
type element struct {
	name string
	size int
	rank int // the library's order of tensors in a blob: highest rank first
}

// The types that a blob of ours may hold, in the order of the library's own enumeration.
var (
	elemU8  = element{"U8", 1, 1}
	elemI32 = element{"I32", 4, 6}
	elemF32 = element{"F32", 4, 7}
	elemI64 = element{"I64", 8, 8}
)

var elements = [...]element{
	elemU8, {"F8_E5M2", 1, 2}, {"F8_E4M3", 1, 3}, {"F16", 2, 4}, {"BF16", 2, 5}, elemI32, elemF32, elemI64,
}

// lookupElement finds an element type by its safetensors name.
func lookupElement(name string) (element, bool) {
	for _, e := range elements {
		if e.name == name {
			return e, true
		}
	}
	return element{}, false
}

// String is the safetensors name: "BF16", "F16", "F32", "F8_E4M3" or "F8_E5M2".
func (d DType) String() string {
	switch d {
	case BF16:
		return "BF16"
	case F16:
		return "F16"
	case F32:
		return "F32"
	case F8E4M3:
		return "F8_E4M3"
	case F8E5M2:
		return "F8_E5M2"
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Size is the bytes of one element, or 0 for a value that is no type.
func (d DType) Size() int {
	e, _ := lookupElement(d.String())
	return e.size
}

// IsF8 says whether the type is one of the two FP8 kinds, which need scales.
func (d DType) IsF8() bool { return d == F8E4M3 || d == F8E5M2 }

func (d DType) element() element {
	e, _ := lookupElement(d.String())
	return e
}

// ParseDType reads a safetensors name. Any other name is refused with page.bad_dtype.
func ParseDType(name string) (DType, error) {
	for d := BF16; d <= F8E5M2; d++ {
		if d.String() == name {
			return d, nil
		}
	}
	return 0, refuse(CodeBadDType, "the element type is unknown", quote(name), "BF16, F16, F32, F8_E4M3 or F8_E5M2")
}
