package page

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	prefixBytes = 8 // the header's length, U64
	metadataKey = "__metadata__"
)

// tensor is one tensor of a blob. data aliases the blob.
type tensor struct {
	name  string
	elem  element
	shape []int
	data  []byte

	begin, end int // offsets in the body, while parsing
}

// container is a safetensors blob taken apart: generic, it knows no page.
type container struct {
	meta    map[string]string // a copy, the caller's to change
	tensors []tensor          // in the order of their bytes
	body    []byte            // the tensors' bytes, without holes
}

// open takes a blob apart. The rules are the safetensors library's own, no looser: the header is an object without
// repeated keys, every tensor's offsets span exactly its shape, and together the tensors cover the body without a
// hole, an overlap or a byte left over.
func open(blob []byte, lim Limits) (container, error) {
	none := container{}
	if int64(len(blob)) > lim.MaxBytes {
		return none, refuse(CodeTooLarge, "the blob is too large", fmt.Sprintf("%d bytes", len(blob)), fmt.Sprintf("at most %d", lim.MaxBytes))
	}
	if len(blob) < prefixBytes {
		return none, refuse(CodeTruncated, "the blob is too short for a header", fmt.Sprintf("%d bytes", len(blob)), "at least 8")
	}
	length := binary.LittleEndian.Uint64(blob)
	if rest := uint64(len(blob) - prefixBytes); length > rest {
		return none, refuse(CodeTruncated, "the blob ends inside its header", fmt.Sprintf("%d bytes after the length", rest), fmt.Sprintf("at least %d", length))
	}
	if length > uint64(lim.MaxHeader) {
		return none, refuse(CodeTooLarge, "the header is too large", fmt.Sprintf("%d bytes", length), fmt.Sprintf("at most %d", lim.MaxHeader))
	}
	text := blob[prefixBytes : prefixBytes+int(length)]
	c := container{body: blob[prefixBytes+int(length):]}
	if err := c.parse(text, lim); err != nil {
		return none, err
	}
	if err := c.place(); err != nil {
		return none, err
	}
	return c, nil
}

// parse reads the header's text.
func (c *container) parse(text []byte, lim Limits) error {
	in := &cursor{text: text, code: CodeBadHeader, name: "the header"}
	if len(text) == 0 || text[0] != '{' {
		return in.bad("'{'")
	}
	if !utf8.Valid(text) {
		return refuse(CodeBadHeader, "the header is no text", "bytes that are no UTF-8", "UTF-8")
	}
	err := in.object(lim.MaxTensors+1, func(key string) error {
		if key == metadataKey {
			return c.parseMetadata(in)
		}
		t, err := parseTensor(in, key)
		c.tensors = append(c.tensors, t)
		return err
	})
	if err != nil {
		return err
	}
	return in.end()
}

func (c *container) parseMetadata(in *cursor) error {
	c.meta = map[string]string{}
	return in.object(maxMetaKeys, func(key string) error {
		value, err := in.str()
		if err == nil && len(value) > maxValueBytes {
			err = refuse(CodeTooLarge, "metadata "+quote(key)+" is too long", fmt.Sprintf("%d bytes", len(value)), fmt.Sprintf("at most %d", maxValueBytes))
		}
		c.meta[key] = value
		return err
	})
}

func parseTensor(in *cursor, name string) (tensor, error) {
	t := tensor{name: name}
	var offsets []int
	fields := 0
	err := in.object(3, func(key string) (err error) {
		fields++
		switch key {
		case "dtype":
			var s string
			if s, err = in.str(); err != nil {
				return err
			}
			known := false
			if t.elem, known = lookupElement(s); !known {
				return refuse(CodeBadDType, "tensor "+quote(name)+" has an unknown element type", quote(s), "one that the format uses")
			}
		case "shape":
			t.shape, err = in.sizes(maxRank)
		case "data_offsets":
			offsets, err = in.sizes(2)
		default:
			err = refuse(CodeBadHeader, "tensor "+quote(name)+" has an unknown field", quote(key), "dtype, shape and data_offsets")
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if fields != 3 || len(offsets) != 2 {
		return t, refuse(CodeBadHeader, "tensor "+quote(name)+" is not described", fmt.Sprintf("%d fields and %d offsets", fields, len(offsets)), "dtype, shape and two data_offsets")
	}
	t.begin, t.end = offsets[0], offsets[1]
	if t.begin > t.end {
		return t, refuse(CodeBadHeader, "tensor "+quote(name)+" ends before it begins", fmt.Sprint(offsets), "begin <= end")
	}
	want, ok := product(append([]int{t.elem.size}, t.shape...)...)
	if !ok {
		return t, refuse(CodeTooLarge, "tensor "+quote(name)+" has a shape whose bytes overflow", fmt.Sprint(t.shape), "less than 2^63 bytes")
	}
	if got := t.end - t.begin; got != want {
		return t, refuse(CodeBadShape, "tensor "+quote(name)+" has offsets that do not span its shape "+fmt.Sprint(t.shape)+" of "+t.elem.name, fmt.Sprintf("%d bytes", got), fmt.Sprintf("%d bytes", want))
	}
	return t, nil
}

// place gives every tensor its bytes, in the order of the bytes.
func (c *container) place() error {
	slices.SortFunc(c.tensors, func(a, b tensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	used := 0
	for i := range c.tensors {
		t := &c.tensors[i]
		span := fmt.Sprintf("[%d, %d)", t.begin, t.end)
		switch {
		case t.end > len(c.body):
			return refuse(CodeTruncated, "tensor "+quote(t.name)+" lies outside the blob", span, fmt.Sprintf("within [0, %d)", len(c.body)))
		case t.begin < used:
			return refuse(CodeOverlap, "tensor "+quote(t.name)+" overlaps the one before it", span, fmt.Sprintf("to begin at %d", used))
		case t.begin > used:
			return refuse(CodeBadHeader, "tensor "+quote(t.name)+" leaves a hole before it", span, fmt.Sprintf("to begin at %d", used))
		}
		t.data = c.body[t.begin:t.end:t.end]
		used = t.end
	}
	if used != len(c.body) {
		return refuse(CodeBadHeader, "the blob has bytes that no tensor owns", fmt.Sprintf("%d bytes of tensors", len(c.body)), fmt.Sprintf("%d bytes", used))
	}
	return nil
}

// sizes reads an array of at most most whole numbers in 0..2^63-1.
func (c *cursor) sizes(most int) ([]int, error) {
	if err := c.expect('['); err != nil {
		return nil, err
	}
	out := []int{}
	if c.is(']') {
		return out, nil
	}
	for {
		raw, err := c.number()
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(raw, 10, strconv.IntSize)
		if err != nil || n < 0 || raw[0] == '-' {
			return nil, refuse(c.code, c.name+" holds a size that is no size", quote(raw), "a whole number from 0 to 2^63-1")
		}
		if len(out) == most {
			return nil, refuse(c.code, c.name+" holds an array that is too long", "more", fmt.Sprintf("at most %d numbers", most))
		}
		out = append(out, int(n))
		if c.is(',') {
			continue
		}
		return out, c.expect(']')
	}
}

// product multiplies sizes that are not negative; ok is false when the result does not fit an int.
func product(sizes ...int) (n int, ok bool) {
	if slices.Contains(sizes, 0) {
		return 0, true
	}
	n = 1
	for _, s := range sizes {
		if s < 0 || n > math.MaxInt/s {
			return 0, false
		}
		n *= s
	}
	return n, true
}
