package page

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/transport/page/bits"
)

// codedAs is c in few bits, with K and V as a reader has them.
func codedAs(t testing.TB, c *Cores, bit int, frequencies []float32, interleaved bool) *Cores {
	t.Helper()
	return mustCode(c, bit, frequencies, interleaved)
}

func mustCode(c *Cores, bit int, frequencies []float32, interleaved bool) *Cores {
	x := new(Coded)
	if !c.Code(bit, frequencies, interleaved, x) {
		panic(fmt.Sprintf("%d bits of %s cannot be coded", bit, c.DType))
	}
	x.k, x.v = nil, nil
	return c
}

// realistic are cores of Gaussian keys and values of dim dimensions, whose keys have in common a mean that rotates. They are
// exact when whole.
func realistic(d DType, dim int, packed, whole bool) *Cores {
	r := rand.New(rand.NewPCG(uint64(dim), uint64(d)))
	c := &Cores{
		Model: "m", Sequence: "s", Layout: "l", TokensTotal: 100, Pages: 1, Tokens: 40,
		DType: d, Layers: 2, KVHeads: 2, Cores: 40, HeadDim: dim, Ratio: 1,
	}
	slots := []int{40, 40, 40, 40}
	if !whole {
		slots, c.Cores, c.Ratio = []int{9, 12, 10, 12}, 12, 0.3
	}
	carrier := bits.Carrier{Mean: make([]float32, dim), Frequencies: frequenciesFor(dim)}
	for i := range carrier.Mean {
		carrier.Mean[i] = 4 * float32(r.NormFloat64())
	}
	turned, turns := make([]float32, dim), make([]bits.Turn, len(carrier.Frequencies))
	for _, used := range slots {
		if packed {
			c.Slots = append(c.Slots, ints(int32(used))...)
		}
		for i := range c.Cores {
			count, at := 1, float32(i)
			switch {
			case i >= used && packed:
				continue
			case i >= used:
				count = 0
			case !whole && i == 2:
				count, at = 40-used+1, 2.125
			}
			c.Counts, c.Bias, c.Positions = append(c.Counts, ints(int32(count))...), append(c.Bias, floats(c.biasOf(int32(count)))...), append(c.Positions, floats(at)...)
			k, v := make([]float32, dim), make([]float32, dim)
			carrier.Turns(turns, at, false)
			carrier.Rotate(turned, turns)
			for j := range k {
				if count > 0 {
					k[j], v[j] = turned[j]+float32(r.NormFloat64()), float32(r.NormFloat64())
				}
			}
			row := make([]byte, dim*d.Size())
			narrowRow(row, k, d)
			c.K = append(c.K, row...)
			narrowRow(row, v, d)
			c.V = append(c.V, row...)
		}
	}
	return c
}

func frequenciesFor(dim int) (f []float32) {
	for i := range dim / 2 {
		f = append(f, 1/float32(int(1)<<min(i, 20))) // powers of two: the same on every machine
	}
	return f
}

func errorOf(got, want []byte, d DType) float64 {
	a, b := make([]float32, len(got)/d.Size()), make([]float32, len(want)/d.Size())
	widenRow(a, got, d)
	widenRow(b, want, d)
	lost, all := 0.0, 0.0
	for i := range a {
		lost += float64(a[i]-b[i]) * float64(a[i]-b[i])
		all += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(lost / all)
}

func TestCodedCoresComeBack(t *testing.T) {
	for _, d := range []DType{BF16, F16, F32} {
		for _, bit := range []int{4, 8} {
			for _, form := range []struct{ packed, whole bool }{{false, true}, {false, false}, {true, false}} {
				t.Run(fmt.Sprintf("%s, %d bits, packed %v, whole %v", d, bit, form.packed, form.whole), func(t *testing.T) {
					want := realistic(d, 64, form.packed, form.whole)
					k, v := slices.Clone(want.K), slices.Clone(want.V)
					c := codedAs(t, want, bit, frequenciesFor(64), false)
					blob := encode(t, c)
					got, err := DecodeCores(blob, Limits{})
					if err != nil {
						t.Fatal(err)
					}
					cores.survives(t, c)
					if !bytes.Equal(got.K, c.K) || !bytes.Equal(got.V, c.V) {
						t.Error("a reader has other keys or values than Code says")
					}
					// The mean has 16 of 17 parts of the keys' energy: their error is a quarter of the values'.
					most := map[int]float64{4: 0.11, 8: 0.012}[bit]
					if e := errorOf(got.V, v, d); e > most {
						t.Errorf("values: relative error %.4f, want at most %v", e, most)
					}
					if e := errorOf(got.K, k, d); e > most/3 {
						t.Errorf("keys: relative error %.4f, want at most %v", e, most/3)
					}
					plain := *c
					plain.Coded, plain.K, plain.V = nil, k, v
					share := float64(len(blob)) / float64(len(encode(t, &plain)))
					if form.whole && share > float64(bit)/float64(8*d.Size())*1.25+0.1 { // 4 of 40 tokens stay as they are
						t.Errorf("got %.3f of the plain bytes for %d bits of %s", share, bit, d)
					}
				})
			}
		}
	}
}

func TestCodeRefusesWhatCannotBeCoded(t *testing.T) {
	large := realistic(F16, 64, false, true)
	for i := range len(large.K) / 2 {
		copy(large.K[2*i:], []byte{0xff, 0x7b}) // 65504, the largest
	}
	odd := sampleCores(F32)
	odd.HeadDim, odd.K, odd.V = 3, pattern(F32, 36, 4), pattern(F32, 36, 5)
	for name, row := range map[string]struct {
		c   *Cores
		bit int
	}{
		"FP8":          {sampleCores(F8E4M3), 4},
		"no such size": {sampleCores(F16), 3},
		"odd head_dim": {odd, 4},
	} {
		k := slices.Clone(row.c.K)
		if row.c.Code(row.bit, nil, false, new(Coded)) || row.c.Coded != nil || !bytes.Equal(k, row.c.K) {
			t.Errorf("%s: coded, or changed", name)
		}
	}
	if huge := realistic(F32, 64, false, true); true {
		copy(huge.V, floats(math.MaxFloat32, math.MaxFloat32))
		v := slices.Clone(huge.V)
		if huge.Code(4, nil, false, new(Coded)) || huge.Coded != nil || !bytes.Equal(huge.V, v) {
			t.Error("a row that overflows is coded")
		}
	}
}

func TestDecodeCoresRefusesBadCodes(t *testing.T) {
	meta := func(key, value string) func(*forgery) { return func(f *forgery) { f.meta[key] = value } }
	put := func(name string, at int, b ...byte) func(*forgery) {
		return func(f *forgery) { copy(f.tensor(name).data[at:], b) }
	}
	for name, row := range map[string]struct {
		change      func(*forgery)
		limits      Limits
		code, words string
	}{
		"three bits":                  {meta("bits", "3"), Limits{}, CodeBadMetadata, `"bits": got "3"`},
		"bits without a value":        {meta("bits", ""), Limits{}, CodeBadMetadata, `"bits"`},
		"no bits":                     {func(f *forgery) { delete(f.meta, "bits") }, Limits{}, CodeUnknownTensor, "does not know"},
		"eight bits of four":          {meta("bits", "8"), Limits{}, CodeBadShape, `"k_mean"`},
		"interleaved, not true":       {meta("interleaved", "yes"), Limits{}, CodeBadMetadata, `"interleaved"`},
		"interleaved without":         {func(f *forgery) { f.meta["interleaved"] = "true"; f.drop("frequencies") }, Limits{}, CodeBadMetadata, "frequencies"},
		"codes of FP8":                {meta("dtype", "F8_E4M3"), Limits{}, CodeBadDType, "coded"},
		"codes in BF16":               {func(f *forgery) { f.tensor("k").elem = BF16.element(); f.reshape("k", 2, 2, 40, 12) }, Limits{}, CodeBadDType, `"k"`},
		"first keys without values":   {func(f *forgery) { f.drop("v_first") }, Limits{}, CodeMissingTensor, `"v_first"`},
		"first values without keys":   {func(f *forgery) { f.drop("k_first") }, Limits{}, CodeMissingTensor, `"k_first"`},
		"more first keys than cores":  {func(f *forgery) { f.reshape("k_first", 2, 2, 41, 24) }, Limits{}, CodeBadShape, `"k_first"`},
		"first keys of another width": {func(f *forgery) { f.reshape("k_first", 2, 2, 4, 23) }, Limits{}, CodeBadShape, `"k_first"`},
		"first keys in F32":           {func(f *forgery) { f.tensor("k_first").elem = elemF32; f.reshape("k_first", 2, 2, 4, 24) }, Limits{}, CodeBadDType, `"k_first"`},
		"first keys that are NaN":     {put("k_first", 0, 0x01, 0x7c), Limits{}, CodeNotFinite, "F16"},
		"no codes of v":               {func(f *forgery) { f.drop("v") }, Limits{}, CodeMissingTensor, `"v"`},
		"v of another width":          {func(f *forgery) { f.reshape("v", 2, 2, 40, 11) }, Limits{}, CodeBadShape, `"v"`},
		"no scale":                    {func(f *forgery) { f.drop("v_scale") }, Limits{}, CodeMissingTensor, `"v_scale"`},
		"a scale for each head":       {func(f *forgery) { f.reshape("k_scale", 2, 2) }, Limits{}, CodeBadShape, `"k_scale"`},
		"a negative scale":            {put("k_scale", 6, 0x80, 0xbf), Limits{}, CodeBadScale, "layer 0, head 0, core 3"},
		"an infinite scale":           {put("v_scale", 2*41, 0x80, 0x7f), Limits{}, CodeBadScale, "layer 0, head 1, core 1"},
		"a scale that is NaN":         {put("v_scale", 0, 0xc0, 0x7f), Limits{}, CodeBadScale, `"v_scale"`},
		"numbers beyond F16":          {put("k_scale", 2*5, 0x00, 0x7f), Limits{}, CodeNotFinite, "F16"},
		"a mean of another width":     {func(f *forgery) { f.reshape("k_mean", 2, 2, 23) }, Limits{}, CodeBadShape, `"k_mean"`},
		"a mean that is NaN":          {put("k_mean", 2*25, 0xc0, 0x7f), Limits{}, CodeNotFinite, "layer 0, head 1"},
		"frequencies without a mean":  {func(f *forgery) { f.drop("k_mean") }, Limits{}, CodeBadShape, `"frequencies"`},
		"too many frequencies":        {func(f *forgery) { f.reshape("frequencies", 13) }, Limits{}, CodeBadShape, `"frequencies"`},
		"no frequency":                {func(f *forgery) { f.reshape("frequencies", 0) }, Limits{}, CodeBadShape, `"frequencies"`},
		"a negative frequency":        {put("frequencies", 0, floats(-1)...), Limits{}, CodeBadRope, "pair 0"},
		"a frequency that is NaN":     {put("frequencies", 4, floats(float32(math.NaN()))...), Limits{}, CodeBadRope, "pair 1"},
		"positions of too few":        {func(f *forgery) { f.reshape("positions", 39) }, Limits{}, CodeBadShape, `"positions"`},
		"positions in I32":            {func(f *forgery) { f.tensor("positions").elem = elemI32 }, Limits{}, CodeBadDType, `"positions"`},
		"a position that is infinite": {put("positions", 8, floats(float32(math.Inf(1)))...), Limits{}, CodeNotFinite, ""},
		"no positions":                {func(f *forgery) { f.drop("positions") }, Limits{}, CodeMissingTensor, `"positions"`},
		"fewer tokens than cores":     {meta("tokens", "39"), Limits{}, CodeBadCounts, "40"},
		"codes of an odd row":         {func(f *forgery) { f.reshape("k", 2, 2, 40, 0); f.reshape("v", 2, 2, 40, 0) }, Limits{}, CodeBadShape, "head_dim"},
		"rows over the limit":         {func(*forgery) {}, Limits{MaxHeadDim: 23}, CodeBadShape, "head_dim"},
		"numbers over the limit":      {func(*forgery) {}, Limits{MaxBytes: 10000}, CodeTooLarge, "rows"},
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, encode(t, codedAs(t, realistic(F16, 24, false, true), 4, frequenciesFor(24), false)))
			row.change(f)
			f.meta[checksumKey] = sumTensors(f.tensors)
			_, err := DecodeCores(f.bytes(), row.limits)
			wantRefusal(t, err, row.code, row.words)
		})
	}
}

func TestHalvesRoundToNearestEven(t *testing.T) {
	for h := range 0x7c00 {
		f := halfOf(uint16(h))
		if got := toHalf(f); got != uint16(h) {
			t.Fatalf("%#x: comes back as %#x", h, got)
		}
		if h == 0x7bff {
			break
		}
		next := halfOf(uint16(h + 1))
		middle := f + (next-f)/2
		if got, want := toHalf(middle), uint16(h+h&1); got != want {
			t.Fatalf("between %#x and the next: got %#x, want the even one", h, got)
		}
		if got := toHalf(-next); got != uint16(h+1)|0x8000 {
			t.Fatalf("-%v: got %#x", next, got)
		}
	}
	if got := toHalf(65520); got != 0x7c00 {
		t.Errorf("65520: got %#x, want infinity", got)
	}
}

// FuzzCoded: whatever cores are coded, a reader has what Code says; whatever bytes are read, decoding is bounded and what is
// accepted survives encoding.
func FuzzCoded(f *testing.F) {
	for i, d := range []DType{BF16, F16, F32} {
		for _, packed := range []bool{false, true} {
			c := realistic(d, 24, packed, false)
			f.Add(encode(f, codedAs(f, c, 4+4*(i&1), frequenciesFor(24), packed)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := maker{data}
		c := m.cores()
		if x := new(Coded); c.Code(4+4*(int(m.byte())&1), frequenciesFor(c.HeadDim)[:min(c.HeadDim/2, int(m.byte()))], m.byte()&1 == 1, x) {
			x.k, x.v = nil, nil
			cores.survives(t, c)
		}
		cores.try(t, data)
		cores.try(t, mend(data))
	})
}

func BenchmarkDecodeCoded(b *testing.B) {
	for _, bit := range []int{4, 8} {
		for _, carried := range []bool{false, true} {
			for _, whole := range []bool{true, false} {
				b.Run(fmt.Sprintf("%d bits, mean %v, whole %v", bit, carried, whole), func(b *testing.B) {
					c := realistic(BF16, 128, !whole, whole)
					var f []float32
					if carried {
						f = frequenciesFor(128)
					}
					codedAs(b, c, bit, f, false)
					if !carried {
						c.Coded.KMean, c.Coded.Frequencies = nil, nil
					}
					k, v := make([]byte, len(c.K)), make([]byte, len(c.V))
					b.SetBytes(int64(len(k) + len(v)))
					for b.Loop() {
						c.Coded.decode(c, k, v)
					}
				})
			}
		}
	}
	b.Run("memory copy", func(b *testing.B) {
		from, to := make([]byte, 1<<20), make([]byte, 1<<20)
		b.SetBytes(1 << 20)
		for b.Loop() {
			copy(to, from)
		}
	})
}

// halfOf widens a finite F16.
func halfOf(h uint16) float32 {
	sign, rest := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	if rest >= 0x400 {
		return math.Float32frombits(sign | (rest<<13 + 112<<23))
	}
	f := float32(rest) * (1.0 / (1 << 24))
	return math.Float32frombits(math.Float32bits(f) | sign)
}
