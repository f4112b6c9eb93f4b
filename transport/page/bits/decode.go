package bits

import "encoding/binary"

// Decode writes the row that codes stand for into dst, Dim floats: the scale times whole numbers.
func (c *Coder) Decode(dst []float32, codes []byte, scale uint16) {
	t, size := widenBF16(scale), block(c.Dim)
	if c.Bits == Four && size >= 4 {
		c.decodeLanes(dst, codes, t, size)
		return
	}
	c.sums = grow(c.sums, c.Dim)
	s := c.sums
	if c.Bits == Eight {
		for i, q := range codes {
			s[i] = 2*int32(q) - 255
		}
	} else {
		for i, q := range codes {
			s[2*i], s[2*i+1] = 2*int32(q&15)-15, 2*int32(q>>4)-15
		}
	}
	for rest := s; len(rest) > 0; rest = rest[size:] {
		for h := 1; h < size; h *= 2 {
			for i := 0; i < size; i += 2 * h {
				a, b := rest[i:i+h], rest[i+h:i+2*h]
				for j, u := range a {
					v := b[j]
					a[j], b[j] = u+v, u-v
				}
			}
		}
	}
	for i := range dst {
		dst[i] = t * float32(s[i])
	}
}

// pairs holds, for each byte of two codes u and v, u+v and u-v+15 in lanes of 16 bits: the first step of the inverse.
var pairs = func() (t [256]uint64) {
	for q := range t {
		u, v := uint64(q&15), uint64(q>>4)
		t[q] = u + v | (u+15-v)<<16
	}
	return t
}()

const lanes = 0x0001000100010001 // one in each of four

// decodeLanes keeps four sums of 16 bits in a word. Codes from 0 to 15 lie evenly around 7.5; with every step the sums a+b and
// a-b+top, where top is the largest of before, lie evenly around the double of it. So no lane is ever negative or carries
// into the next, up to 15 times 1024 in the end.
func (c *Coder) decodeLanes(dst []float32, codes []byte, t float32, size int) {
	c.lanes = grow(c.lanes, c.Dim/4)
	w := c.lanes
	codes = codes[:2*len(w)]
	for i := range w {
		q := binary.LittleEndian.Uint16(codes[2*i:])
		a, b := pairs[q&255], pairs[q>>8]
		w[i] = a + b | (a+30*(lanes&0xffffffff)-b)<<32
	}
	for rest := w; len(rest) > 0; rest = rest[size/4:] {
		top := uint64(60 * lanes)
		for h := 1; h < size/4; h *= 2 {
			for i := 0; i < size/4; i += 2 * h {
				a, b := rest[i:i+h], rest[i+h:i+2*h]
				b = b[:len(a)]
				for j, u := range a {
					v := b[j]
					a[j], b[j] = u+v, u+top-v
				}
			}
			top *= 2
		}
	}
	middle := int32(15 * size)
	dst = dst[:4*len(w)]
	for i, x := range w {
		d := dst[4*i : 4*i+4 : 4*i+4]
		d[0] = t * float32(2*int32(x&0xffff)-middle)
		d[1] = t * float32(2*int32(x>>16&0xffff)-middle)
		d[2] = t * float32(2*int32(x>>32&0xffff)-middle)
		d[3] = t * float32(2*int32(x>>48)-middle)
	}
}

func grow[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}
