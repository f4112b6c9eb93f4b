package page

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// mostAllocated bounds what a decoder may allocate for an input: a base for errors and small maps, and a constant for
// each byte, whatever lengths the input claims.
func mostAllocated(input []byte) uint64 { return 32<<10 + 16*uint64(len(input)) }

// codec is how a fuzz target reads one of the two formats.
type codec struct {
	decode func([]byte) (appender, error)
	digest bool
}

var (
	pages = codec{func(b []byte) (appender, error) { return Decode(b, Limits{}) }, true}
	cores = codec{func(b []byte) (appender, error) { return DecodeCores(b, Limits{}) }, false}
)

// FuzzPage: a generated page survives encoding; arbitrary bytes never panic, never allocate more than their own length
// explains, and whatever is accepted survives encoding too.
//
// Run it with -fuzzminimizetime 20x: the coverage of maps is not the same twice, and the tool otherwise spends its time
// on minimizing instead of trying new inputs.
func FuzzPage(f *testing.F) {
	addGoldens(f, ".page.safetensors")
	f.Fuzz(func(t *testing.T, data []byte) {
		pages.survives(t, (&maker{data}).page())
		pages.try(t, data)
		pages.try(t, mend(data))
	})
}

// FuzzCores holds the same for cores; CheckCounts must not panic on sizes that lie.
func FuzzCores(f *testing.F) {
	addGoldens(f, ".cores.safetensors")
	f.Fuzz(func(t *testing.T, data []byte) {
		m := maker{data}
		padded := m.cores()
		cores.survives(t, padded)
		packed := packedOf(padded)
		cores.survives(t, packed)
		wantSameHeads(t, packed, padded)
		lying := &Cores{Layers: m.upTo(3), KVHeads: m.upTo(3), Cores: m.upTo(4), HeadDim: 1, Tokens: m.upTo(9), Counts: data, Bias: data, Assign: data}
		_ = lying.CheckCounts()
		lying.Slots = m.data
		_ = lying.CheckCounts()
		lying.Dropped = data
		_ = lying.CheckCounts()
		cores.try(t, data)
		cores.try(t, mend(data))
	})
}

// try decodes what may be anything.
func (c codec) try(t *testing.T, data []byte) {
	t.Helper()
	var got appender
	var err error
	used := allocated(func() { got, err = c.decode(data) })
	if most := mostAllocated(data); used > most {
		t.Fatalf("decoding %d bytes allocated %d, want at most %d", len(data), used, most)
	}
	if err == nil {
		c.survives(t, got)
		if c, is := got.(*Cores); is {
			wantWholeHeads(t, c)
		}
		return
	}
	var refusal *Error
	if !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Code(), "page.") {
		t.Fatalf("got error %v, want an *Error with a page code", err)
	}
	if len(err.Error()) > 1000 {
		t.Fatalf("got a sentence of %d bytes, want a short one", len(err.Error()))
	}
}

// survives holds decode(encode(want)) == want, and one encoding for one value.
func (c codec) survives(t *testing.T, want appender) {
	t.Helper()
	blob := encode(t, want)
	got, err := c.decode(blob)
	if err != nil {
		t.Fatalf("decode what was encoded: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if !bytes.Equal(encode(t, got), blob) {
		t.Fatalf("one value has two encodings")
	}
	if c.digest && got.(*Page).Digest() != want.(*Page).Digest() {
		t.Fatalf("one page has two digests")
	}
}

// mend gives a sound container the checksum of its bytes, so that a changed byte reaches the checks behind it.
func mend(data []byte) []byte {
	c, err := open(data, DefaultLimits())
	if err != nil {
		return data
	}
	if _, has := c.meta[checksumKey]; has {
		c.meta[checksumKey] = sumTensors(c.tensors)
	}
	return (&forgery{meta: c.meta, tensors: c.tensors}).bytes()
}

func addGoldens(f *testing.F, suffix string) {
	files, err := filepath.Glob(filepath.Join("testdata", "*"+suffix))
	if err != nil || len(files) == 0 {
		f.Fatalf("got %d golden files (%v), want some", len(files), err)
	}
	for _, file := range files {
		blob, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Add(raw(`{"k":{"dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0]}}`, 0))
	f.Add(raw(`{"__metadata__":{"\u0061":"\\"}}`, 0))
}

// maker turns fuzz bytes into valid values; when the bytes end it goes on with zeros.
type maker struct{ data []byte }

func (m *maker) byte() byte {
	if len(m.data) == 0 {
		return 0
	}
	b := m.data[0]
	m.data = m.data[1:]
	return b
}

func (m *maker) upTo(most int) int { return 1 + int(m.byte())%most }

func (m *maker) dtype() DType { return allDTypes[int(m.byte())%len(allDTypes)] }

func (m *maker) text() string {
	b := make([]byte, m.byte()%16)
	for i := range b {
		b[i] = m.byte()
	}
	return strings.ToValidUTF8(string(b), "?")
}

func (m *maker) extra() map[string]string {
	n := int(m.byte()) % 4
	if n == 0 {
		return nil
	}
	all := map[string]string{}
	for range n {
		all["x."+m.text()] = m.text()
	}
	return all
}

func (m *maker) page() *Page {
	p := &Page{
		Model: "m", Sequence: "s", Layout: "l", LayerFirst: int(m.byte()), TokenFirst: int(m.byte()), TokensTotal: 1000,
		Page: int(m.byte()), Pages: 256, DType: m.dtype(), Checksummed: m.byte()&1 == 1,
		Layers: m.upTo(3), KVHeads: m.upTo(3), Tokens: m.upTo(9), HeadDim: m.upTo(9), Extra: m.extra(),
	}
	p.Rope = Rope{Type: "none"}
	if p.HeadDim > 1 {
		p.Rope = Rope{Type: "yarn", Theta: 1 / float64(m.upTo(99)), RotaryDim: 2, Interleaved: m.byte()&1 == 1, Factor: float64(m.byte()), OriginalMaxPosition: int(m.byte())}
	}
	n, seed := p.Layers*p.KVHeads*p.Tokens*p.HeadDim, uint32(m.byte())
	p.K, p.V = pattern(p.DType, n, seed), pattern(p.DType, n, seed+1)
	if p.DType.IsF8() {
		p.KScale, p.VScale = scales(p.Layers*p.KVHeads), scales(p.Layers*p.KVHeads)
	}
	ids, at, last := make([]int64, p.Tokens), make([]int64, p.Tokens), int64(-1)
	for i := range ids {
		last += int64(m.upTo(256))
		ids[i], at[i] = int64(m.byte()), last
	}
	p.TokenIDs, p.Positions = Ints64Of(ids), Ints64Of(at)
	if m.byte()&1 == 1 {
		p.QDType, p.QHeads, p.Window = F32, p.KVHeads*m.upTo(3), m.upTo(3)
		p.Q = pattern(F32, p.Layers*p.QHeads*p.Window*p.HeadDim, seed+2)
	}
	if m.byte()&1 == 1 {
		p.Boundary = bytes.Repeat([]byte{m.byte()}, p.Tokens)
	}
	if m.byte()&1 == 1 {
		p.Protect = bytes.Repeat([]byte{m.byte()}, p.Tokens)
	}
	return p
}

// cores gives every head some of the tokens one core each, and the last core the rest, or the rest but some that it drops.
func (m *maker) cores() *Cores {
	c := &Cores{
		Model: "m", Sequence: "s", Layout: "l", TokensTotal: 1000, Pages: 1, Tokens: m.upTo(20), DType: m.dtype(),
		Layers: m.upTo(3), KVHeads: m.upTo(3), HeadDim: m.upTo(5), Extra: m.extra(), Fidelity: m.extra(),
		Policy: m.text(), Engine: m.text(), Ratio: float64(m.byte()) / 7,
	}
	c.Cores = m.upTo(c.Tokens + 2)
	heads := c.Layers * c.KVHeads
	var counts, assign, dropped []int32
	var bias, at []float32
	evicts := m.byte()&1 == 1
	for range heads {
		tokens := c.Tokens
		if evicts {
			tokens = m.upTo(c.Tokens)
		}
		dropped = append(dropped, int32(c.Tokens-tokens))
		kept := min(m.upTo(c.Cores), tokens)
		for i := range c.Cores {
			switch {
			case i < kept-1:
				counts, bias = append(counts, 1), append(bias, 0)
			case i == kept-1:
				counts, bias = append(counts, int32(tokens-kept+1)), append(bias, 0.5)
			default:
				counts, bias = append(counts, 0), append(bias, float32(math.Inf(-1)))
			}
			at = append(at, float32(i))
		}
		for i := range c.Tokens {
			if i < tokens {
				assign = append(assign, int32(min(i, kept-1)))
			} else {
				assign = append(assign, -1)
			}
		}
	}
	c.Counts, c.Bias, c.Positions = ints(counts...), floats(bias...), floats(at...)
	if m.byte()&1 == 1 {
		c.Assign = ints(assign...)
	}
	if evicts {
		c.Dropped = ints(dropped...)
	}
	seed := uint32(m.byte())
	c.K, c.V = pattern(c.DType, heads*c.Cores*c.HeadDim, seed), pattern(c.DType, heads*c.Cores*c.HeadDim, seed+1)
	if c.DType.IsF8() {
		c.KScale, c.VScale = scales(heads), scales(heads)
	}
	return c
}
