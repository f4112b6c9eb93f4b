package shm

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/transport"
)

const someRegion = "0123456789abcdef0123456789abcdef"

func codeOf(err error) string {
	var e *transport.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	if err != nil {
		return "uncoded: " + err.Error()
	}
	return ""
}

func TestParseDescriptorInvertsString(t *testing.T) {
	sum := uint32(math.MaxUint32)
	for _, d := range []Descriptor{
		{Region: someRegion},
		{Region: someRegion, Generation: math.MaxUint64, Offset: 64, Length: math.MaxInt64, CRC32: &sum},
		{Region: someRegion, Reply: &Room{Generation: 3, Offset: math.MaxInt64 &^ 63, Length: 1}},
	} {
		got, err := ParseDescriptor(d.String())
		if err != nil || got.String() != d.String() {
			t.Errorf("%s: got %s, %v", d, got, err)
		}
	}
}

func TestMalformedDescriptorsAreRefused(t *testing.T) {
	good := `{"region":"` + someRegion + `","generation":1,"offset":0,"length":1}`
	if _, err := ParseDescriptor(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"not JSON":            "region",
		"a list":              "[" + good + "]",
		"something follows":   good + "{}",
		"unknown field":       strings.Replace(good, `"offset"`, `"ofset"`, 1),
		"no region":           `{"generation":1,"offset":0,"length":1}`,
		"region with a slash": strings.Replace(good, "0123", "../.", 1),
		"negative offset":     strings.Replace(good, `"offset":0`, `"offset":-64`, 1),
		"unaligned offset":    strings.Replace(good, `"offset":0`, `"offset":63`, 1),
		"negative length":     strings.Replace(good, `"length":1`, `"length":-1`, 1),
		"offset over int64":   strings.Replace(good, `"offset":0`, `"offset":9223372036854775808`, 1),
		"length over int64":   strings.Replace(good, `"length":1`, `"length":9223372036854775808`, 1),
		"generation negative": strings.Replace(good, `"generation":1`, `"generation":-1`, 1),
		"fractional length":   strings.Replace(good, `"length":1`, `"length":1.5`, 1),
		"crc over 32 bits":    strings.Replace(good, `"length":1`, `"length":1,"crc32":4294967296`, 1),
		"reply unaligned":     strings.Replace(good, `"length":1`, `"length":1,"reply":{"offset":1,"length":1}`, 1),
		"reply negative":      strings.Replace(good, `"length":1`, `"length":1,"reply":{"offset":64,"length":-9223372036854775808}`, 1),
		"too long":            good + strings.Repeat(" ", maxDescriptor),
	} {
		if _, err := ParseDescriptor(text); codeOf(err) != CodeBadDescriptor {
			t.Errorf("%s: got %v, want code %s", name, err, CodeBadDescriptor)
		}
	}
}

func TestAReplyMustBeInTheRoomThatWasSetAside(t *testing.T) {
	room := Room{Offset: 128, Length: 10}
	if _, err := ParseReply(Reply{Offset: 128, Length: 10}.String(), room); err != nil {
		t.Error(err)
	}
	for _, r := range []Reply{{Offset: 64, Length: 10}, {Offset: 128, Length: 11}, {Offset: 128, Length: -1}, {Offset: 128, Length: math.MaxInt64}} {
		if _, err := ParseReply(r.String(), room); codeOf(err) != CodeBadDescriptor {
			t.Errorf("%s: got %v, want code %s", r, err, CodeBadDescriptor)
		}
	}
}

func TestInsideAtTheLimitsOfIntegers(t *testing.T) {
	const size = 4096
	for _, c := range []struct {
		offset, length int64
		want           bool
	}{
		{0, 0, true}, {0, size - 64, true}, {size - 64, 0, true}, {64, size - 128, true},
		{0, size - 63, false}, {64, size - 127, false}, {size, 0, false}, {size - 64, 1, false},
		{math.MaxInt64, 0, false}, {0, math.MaxInt64, false}, {math.MaxInt64, math.MaxInt64, false},
		{math.MaxInt64 - 63, 64, false}, {math.MaxInt64 &^ 63, 0, false}, {-64, 64, false}, {math.MinInt64, 0, false}, {0, math.MinInt64, false},
	} {
		if got := inside(c.offset, c.length, size); got != c.want {
			t.Errorf("inside(%d, %d, %d): got %v, want %v", c.offset, c.length, size, got, c.want)
		}
	}
	if inside(0, 0, 0) || inside(0, 0, 63) || inside(0, 0, math.MinInt64) {
		t.Error("a block in a region smaller than its header: got true, want false")
	}
}

func FuzzParseDescriptor(f *testing.F) {
	sum := uint32(7)
	f.Add(Descriptor{Region: someRegion, Generation: 1, Offset: 64, Length: 5, CRC32: &sum, Reply: &Room{Offset: 128, Length: 9}}.String())
	f.Add(`{"region":"` + someRegion + `","offset":9223372036854775744,"length":9223372036854775807}`)
	f.Add(`{}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDescriptor(text)
		if err != nil {
			if codeOf(err) != CodeBadDescriptor {
				t.Fatalf("got %v, want code %s", err, CodeBadDescriptor)
			}
			return
		}
		again, err := ParseDescriptor(d.String())
		if err != nil || again.String() != d.String() {
			t.Fatalf("%q parses to %s, which parses to %s, %v", text, d, again, err)
		}
		const size = 1 << 20
		if inside(d.Offset, d.Length, size) && (d.Offset+BlockHeader > size || d.Length > size-BlockHeader-d.Offset) {
			t.Fatalf("%s is said to lie in %d bytes", d, size)
		}
	})
}

func TestTheAllocatorNeverHandsOutTheSameBytesTwice(t *testing.T) {
	const size = 1 << 20
	a := newAllocator(size)
	rng := rand.New(rand.NewPCG(1, 2))
	var out []span
	for step := range 20_000 {
		if rng.IntN(2) == 0 || len(out) == 0 {
			if s, ok := a.take(1 + rng.Int64N(100_000)); ok {
				for _, o := range out {
					if s.offset < o.offset+o.length && o.offset < s.offset+s.length {
						t.Fatalf("step %d: %v overlaps %v", step, s, o)
					}
				}
				if s.offset < 0 || s.offset+s.length > size || s.offset%align != 0 {
					t.Fatalf("step %d: %v lies outside or is not aligned", step, s)
				}
				out = append(out, s)
			}
			continue
		}
		i := rng.IntN(len(out))
		if idle := a.give(out[i]); idle != (len(out) == 1) {
			t.Fatalf("step %d: idle %v with %d parts out", step, idle, len(out)-1)
		}
		out[i] = out[len(out)-1]
		out = out[:len(out)-1]
	}
	for _, s := range out {
		a.give(s)
	}
	if len(a.free) != 1 || a.free[0] != (span{0, size}) {
		t.Errorf("after all were given back: got %v, want one part of everything", a.free)
	}
	for _, n := range []int64{0, -1, size + 1, math.MaxInt64} {
		if _, ok := a.take(n); ok {
			t.Errorf("take(%d): got a part, want none", n)
		}
	}
}

func TestBuffersHaveTheLengthThatWasAskedFor(t *testing.T) {
	var b buffers
	for _, n := range []int64{0, 1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1} {
		for range 2 {
			p := b.get(n)
			if int64(len(*p)) != n {
				t.Errorf("get(%d): got %d bytes", n, len(*p))
			}
			b.put(p)
		}
	}
	if fmt.Sprint(class(1), class(4096), class(4097)) != "0 0 1" {
		t.Errorf("classes: got %d %d %d, want 0 0 1", class(1), class(4096), class(4097))
	}
}
