package page

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// pattern fills n elements of d with finite bits: testdata/make_golden.py has the same function.
func pattern(d DType, n int, seed uint32) []byte {
	b := make([]byte, 0, n*d.Size())
	for i := range uint32(n) {
		x := (i+1)*2654435761 + seed*40503
		switch d.Size() {
		case 1:
			b = append(b, byte(x>>13)&0xbf)
		case 2:
			b = binary.LittleEndian.AppendUint16(b, uint16(x>>11)&0xbfff)
		case 4:
			b = binary.LittleEndian.AppendUint32(b, x&0xbfffffff)
		}
	}
	return b
}

func floats(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func ints(values ...int32) []byte { return IntsOf(values).b }

// scales is 0.5, 0.75, 1 ...
func scales(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, floats(0.5+0.25*float32(i))...)
	}
	return b
}

// samplePage is a small page of d: 2 layers, 2 KV heads, 5 tokens, head dim 4.
func samplePage(d DType) *Page {
	p := &Page{
		Model: "llama-3-8b", Sequence: "request-1", Layout: "hf.llama.LHTD",
		LayerFirst: 4, TokenFirst: 16, TokensTotal: 64, Page: 1, Pages: 4,
		Rope:  Rope{Type: "default", Theta: 10000, RotaryDim: 4},
		DType: d, Layers: 2, KVHeads: 2, Tokens: 5, HeadDim: 4,
		K: pattern(d, 80, 1), V: pattern(d, 80, 2),
		TokenIDs:  IntsOf([]int32{5, 0, 7, 5, 1279}),
		Positions: IntsOf([]int32{16, 17, 18, 20, 21}),
	}
	if d.IsF8() {
		p.KScale, p.VScale = scales(4), scales(4)
	}
	return p
}

// fullPage is samplePage with every optional part.
func fullPage(d DType) *Page {
	p := samplePage(d)
	p.QDType, p.QHeads, p.Window, p.Q = d, 4, 3, pattern(d, 2*4*3*4, 3)
	p.Boundary, p.Protect = []byte{0, 1, 0, 0, 1}, []byte{1, 0, 0, 0, 0}
	p.Checksummed = true
	p.Extra = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	return p
}

// sampleCores stands for samplePage(d): 3 cores for the 5 tokens, the last head with one of padding.
func sampleCores(d DType) *Cores {
	inf := float32(math.Inf(-1))
	c := &Cores{
		Model: "llama-3-8b", Sequence: "request-1", Layout: "hf.llama.LHTD",
		LayerFirst: 4, TokenFirst: 16, TokensTotal: 64, Page: 1, Pages: 4, Tokens: 5,
		DType: d, Layers: 2, KVHeads: 2, Cores: 3, HeadDim: 4,
		K: pattern(d, 48, 4), V: pattern(d, 48, 5),
		Counts:    ints(1, 3, 1, 2, 2, 1, 1, 1, 3, 4, 1, 0),
		Bias:      floats(0, 1.0986123, 0, 0.6931472, 0.6931472, 0, 0, 0, 1.0986123, 1.3862944, 0, inf),
		Positions: floats(16, 18.25, 21, 16.5, 19, 21, 16, 17, 19.75, 17.75, 21, 0),
		Assign: ints(
			0, 1, 1, 1, 2,
			0, 0, 1, 1, 2,
			0, 1, 2, 2, 2,
			0, 0, 0, 0, 1),
		Policy: "acme/balanced", PolicyDigest: "9f86d081", Rule: "rules[1]", Engine: "cpu:avx512",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Ratio:       0.55,
		Fidelity:    map[string]string{"attention_error": "0.031", "key_similarity": "0.98"},
	}
	if d.IsF8() {
		c.KScale, c.VScale = scales(4), scales(4)
	}
	return c
}

// packedCores stands for samplePage(d) in the packed form: 1, 3, 5 and 2 cores.
func packedCores(d DType) *Cores {
	c := sampleCores(d)
	c.Cores, c.Slots = 5, ints(1, 3, 5, 2)
	c.K, c.V = pattern(d, 44, 6), pattern(d, 44, 7)
	c.Counts = ints(5, 2, 2, 1, 1, 1, 1, 1, 1, 4, 1)
	c.Bias = floats(1.609438, 0.6931472, 0.6931472, 0, 0, 0, 0, 0, 0, 1.3862944, 0)
	c.Positions = floats(18.5, 16.5, 19, 21, 16, 17, 18, 20, 21, 17.75, 21)
	c.Assign = ints(
		0, 0, 0, 0, 0,
		0, 0, 1, 1, 2,
		0, 1, 2, 3, 4,
		0, 0, 0, 0, 1)
	return c
}

// evicted turns sampleCores or packedCores into those of a method that drops tokens: the token before the last of head 0/1,
// two of head 1/0.
func evicted(c *Cores) *Cores {
	c.Dropped = ints(0, 1, 2, 0)
	first := [2]int{3, 6} // the entries of the heads 0/1 and 1/0
	if c.Slots != nil {
		first = [2]int{1, 4}
		c.Slots, c.Cores = ints(1, 3, 3, 2), 3
		c.K, c.V = pattern(c.DType, 36, 6), pattern(c.DType, 36, 7)
		c.Counts, c.Bias = slices.Delete(c.Counts, 28, 36), slices.Delete(c.Bias, 28, 36)
		c.Positions = slices.Delete(c.Positions, 28, 36)
	}
	copy(c.Counts[4*first[0]:], ints(2, 1, 1))
	copy(c.Bias[4*first[0]:], floats(0.6931472, 0, 0))
	copy(c.Counts[4*first[1]:], ints(1, 1, 1))
	copy(c.Bias[4*first[1]:], floats(0, 0, 0))
	c.Assign = ints(
		0, 1, 1, 1, 2,
		0, 0, 1, -1, 2,
		0, 1, -1, 2, -1,
		0, 0, 0, 0, 1)
	if c.Slots != nil {
		copy(c.Assign, ints(0, 0, 0, 0, 0))
	}
	return c
}

// forgery is a blob in parts, for tests that break one of them. Nothing is checked when it is put together.
type forgery struct {
	meta    map[string]string
	tensors []tensor
}

func forge(t testing.TB, blob []byte) *forgery {
	t.Helper()
	c, err := open(blob, DefaultLimits())
	if err != nil {
		t.Fatalf("open a good blob: %v", err)
	}
	f := &forgery{meta: c.meta}
	for _, tn := range c.tensors {
		tn.data = slices.Clone(tn.data)
		f.tensors = append(f.tensors, tn)
	}
	return f
}

func (f *forgery) tensor(name string) *tensor {
	for i := range f.tensors {
		if f.tensors[i].name == name {
			return &f.tensors[i]
		}
	}
	panic("no tensor " + name)
}

func (f *forgery) drop(name string) {
	f.tensors = slices.DeleteFunc(f.tensors, func(t tensor) bool { return t.name == name })
}

// reshape gives a tensor another shape and the zero bytes that it needs.
func (f *forgery) reshape(name string, shape ...int) {
	t := f.tensor(name)
	n, _ := product(append([]int{t.elem.size}, shape...)...)
	t.shape, t.data = shape, make([]byte, n)
}

func (f *forgery) bytes() []byte {
	header := appendHeader(nil, f.meta, f.tensors)
	blob := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	for _, t := range f.tensors {
		blob = append(blob, t.data...)
	}
	return blob
}

// raw is a blob of a hand-written header.
func raw(header string, body int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, body)...)
}

func encode(t testing.TB, v interface {
	Append(dst []byte) ([]byte, error)
}) []byte {
	t.Helper()
	b, err := v.Append(nil)
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return b
}

// wantRefusal demands an *Error with this code, whose sentence contains words.
func wantRefusal(t testing.TB, err error, code, words string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *Error with code %s", err, code)
	}
	if e.Code() != code {
		t.Errorf("got code %s (%v), want %s", e.Code(), e, code)
	}
	if !strings.Contains(e.Error(), words) {
		t.Errorf("got %q, want a sentence with %q", e, words)
	}
	if len(e.Error()) > 600 {
		t.Errorf("got a sentence of %d bytes, want a short one", len(e.Error()))
	}
}

// skipUnlessRequired skips a test that lacks what it needs, or fails it when SEMPROXY_TEST_REQUIRE names the need.
func skipUnlessRequired(t *testing.T, need, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), need) {
		t.Fatalf("SEMPROXY_TEST_REQUIRE names %s: %s", need, reason)
	}
	t.Skipf("needs %s: %s", need, reason)
}
