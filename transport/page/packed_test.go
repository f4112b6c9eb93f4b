package page

import (
	"bytes"
	"math"
	"slices"
	"testing"
)

// packedOf leaves the padding of cores out, independently of Head.
func packedOf(c *Cores) *Cores {
	p := *c
	p.Cores, p.Slots, p.K, p.V, p.Counts, p.Bias, p.Positions = 0, []byte{}, nil, nil, nil, nil, nil
	row := c.DType.Size() * c.HeadDim
	for plane := range c.Layers * c.KVHeads {
		kept := 0
		for i := plane * c.Cores; i < (plane+1)*c.Cores; i++ {
			if int32At(c.Counts, i) == 0 {
				continue
			}
			kept++
			p.K, p.V = append(p.K, c.K[i*row:(i+1)*row]...), append(p.V, c.V[i*row:(i+1)*row]...)
			p.Counts, p.Bias = append(p.Counts, c.Counts[4*i:4*i+4]...), append(p.Bias, c.Bias[4*i:4*i+4]...)
			p.Positions = append(p.Positions, c.Positions[4*i:4*i+4]...)
		}
		p.Slots, p.Cores = append(p.Slots, ints(int32(kept))...), max(p.Cores, kept)
	}
	return &p
}

// wantWholeHeads demands of decoded cores that every head is there, without padding.
func wantWholeHeads(t *testing.T, c *Cores) {
	t.Helper()
	row, most := c.DType.Size()*c.HeadDim, 0
	for l := range c.Layers {
		for h := range c.KVHeads {
			got := c.Head(l, h)
			if len(got.K) != got.N*row || len(got.V) != got.N*row || len(got.Counts) != 4*got.N || len(got.Bias) != 4*got.N || len(got.Positions) != 4*got.N {
				t.Fatalf("layer %d, head %d: got views of %d, %d, %d, %d and %d bytes, want those of %d cores", l, h,
					len(got.K), len(got.V), len(got.Counts), len(got.Bias), len(got.Positions), got.N)
			}
			sum := 0
			for i := range got.N {
				sum += int(int32At(got.Counts, i))
				if b := float64(float32At(got.Bias, i)); math.IsInf(b, 0) || math.IsNaN(b) {
					t.Fatalf("layer %d, head %d: got bias %v for core %d, want no padding", l, h, b, i)
				}
			}
			dropped := 0
			if c.Dropped != nil {
				dropped = int(int32At(c.Dropped, l*c.KVHeads+h))
			}
			if sum+dropped != c.Tokens {
				t.Fatalf("layer %d, head %d: got counts of %d tokens and %d dropped, want %d in all", l, h, sum, dropped, c.Tokens)
			}
			most = max(most, got.N)
		}
	}
	if most > c.Cores || c.Slots != nil && most != c.Cores {
		t.Fatalf("got %d cores of the largest head, want %d", most, c.Cores)
	}
}

func wantSameHeads(t *testing.T, got, want *Cores) {
	t.Helper()
	wantWholeHeads(t, got)
	for l := range want.Layers {
		for h := range want.KVHeads {
			g, w := got.Head(l, h), want.Head(l, h)
			if g.N != w.N || !bytes.Equal(g.K, w.K) || !bytes.Equal(g.V, w.V) || !bytes.Equal(g.Counts, w.Counts) || !bytes.Equal(g.Bias, w.Bias) || !bytes.Equal(g.Positions, w.Positions) {
				t.Fatalf("layer %d, head %d: got %+v, want %+v", l, h, g, w)
			}
		}
	}
}

func TestHeadIsTheSameInBothForms(t *testing.T) {
	for _, d := range allDTypes {
		padded := sampleCores(d)
		decoded, err := DecodeCores(encode(t, packedOf(padded)), Limits{})
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		wantSameHeads(t, decoded, padded)
	}
}

func TestHeadSkipsThePaddingAndTheHeadsBefore(t *testing.T) {
	padded, packed := sampleCores(F16), packedCores(F16)
	for name, row := range map[string]struct {
		got    HeadCores
		counts []byte
		k      []byte
	}{
		"padded, full":          {padded.Head(1, 0), ints(1, 1, 3), padded.K[48:72]},
		"padded, short":         {padded.Head(1, 1), ints(4, 1), padded.K[72:88]},
		"packed, the first":     {packed.Head(0, 0), ints(5), packed.K[:8]},
		"packed, in the middle": {packed.Head(1, 0), ints(1, 1, 1, 1, 1), packed.K[32:72]},
		"packed, the last":      {packed.Head(1, 1), ints(4, 1), packed.K[72:]},
	} {
		if row.got.N != len(row.counts)/4 || !bytes.Equal(row.got.Counts, row.counts) || !bytes.Equal(row.got.K, row.k) {
			t.Errorf("%s: got %d cores, counts %v, k %v; want counts %v, k %v", name, row.got.N, row.got.Counts, row.got.K, row.counts, row.k)
		}
		if cap(row.got.K) != len(row.got.K) {
			t.Errorf("%s: appending to the view would overwrite the next head", name)
		}
	}
}

func TestHeadPanicsOutsideTheCores(t *testing.T) {
	for _, at := range [][2]int{{-1, 0}, {2, 0}, {0, -1}, {0, 2}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Head(%d, %d): got a head, want a panic", at[0], at[1])
				}
			}()
			packedCores(F16).Head(at[0], at[1])
		}()
	}
}

func TestDecodeCoresRefusesBadPackedCores(t *testing.T) {
	meta := func(key, value string) func(*forgery) { return func(f *forgery) { f.meta[key] = value } }
	slots := func(values ...int32) func(*forgery) {
		return func(f *forgery) { f.tensor("slots").data = ints(values...) }
	}
	// longer gives every entry's tensor n rows, those that are new of count 1 and bias 0.
	longer := func(n int) func(*forgery) {
		return func(f *forgery) {
			for _, name := range []string{"k", "v"} {
				f.reshape(name, n, 4)
			}
			for _, name := range []string{"counts", "bias", "positions"} {
				f.reshape(name, n)
			}
			f.tensor("counts").data = slices.Repeat(ints(1), n)
		}
	}
	for name, row := range map[string]struct {
		change      func(*forgery)
		limits      Limits
		code, words string
	}{
		"packed, but another word":             {meta("packed", "yes"), Limits{}, CodeBadMetadata, `"packed": got "yes"`},
		"packed false instead of absent":       {meta("packed", "false"), Limits{}, CodeBadMetadata, `"packed"`},
		"packed without a value":               {meta("packed", ""), Limits{}, CodeBadMetadata, `"packed"`},
		"slots in the padded form":             {func(f *forgery) { delete(f.meta, "packed") }, Limits{}, CodeUnknownTensor, `"slots"`},
		"k padded":                             {func(f *forgery) { f.reshape("k", 2, 2, 5, 4) }, Limits{}, CodeBadShape, "[entries, head_dim]"},
		"no slots":                             {func(f *forgery) { f.drop("slots") }, Limits{}, CodeMissingTensor, `"slots"`},
		"slots in F32":                         {func(f *forgery) { f.tensor("slots").elem = elemF32 }, Limits{}, CodeBadDType, `"slots"`},
		"slots of one dimension":               {func(f *forgery) { f.tensor("slots").shape = []int{4} }, Limits{}, CodeBadShape, "[layers, kv_heads]"},
		"slots of no layer":                    {func(f *forgery) { f.reshape("slots", 0, 2) }, Limits{}, CodeBadShape, "layers"},
		"slots of no head":                     {func(f *forgery) { f.reshape("slots", 2, 0) }, Limits{}, CodeBadShape, "heads"},
		"slots of 2^60 layers of no head":      {func(f *forgery) { f.reshape("slots", 1<<60, 0) }, Limits{}, CodeTooLarge, "layers"},
		"too many layers":                      {func(*forgery) {}, Limits{MaxLayers: 1}, CodeTooLarge, "layers"},
		"too many heads":                       {func(*forgery) {}, Limits{MaxHeads: 1}, CodeTooLarge, "heads"},
		"head_dim over the limit":              {func(*forgery) {}, Limits{MaxHeadDim: 3}, CodeTooLarge, "head_dim"},
		"no head_dim":                          {func(f *forgery) { f.reshape("k", 1<<60, 0) }, Limits{}, CodeBadShape, "head_dim"},
		"no entry":                             {func(f *forgery) { f.reshape("k", 0, 4) }, Limits{}, CodeEmpty, "core"},
		"no tokens":                            {meta("tokens", "0"), Limits{}, CodeEmpty, "token"},
		"a head without a core":                {slots(0, 3, 5, 3), Limits{}, CodeBadCounts, "layer 0, head 0: got 0, want at least 1"},
		"a negative slot":                      {slots(1, 3, 9, -2), Limits{}, CodeBadCounts, "layer 1, head 1: got -2"},
		"slots that sum to less":               {slots(1, 3, 4, 2), Limits{}, CodeBadShape, "got 10, want 11"},
		"slots that sum to more":               {slots(1, 3, 6, 2), Limits{}, CodeBadShape, "got 12, want 11"},
		"a huge slot":                          {slots(1, math.MaxInt32, 5, 2), Limits{}, CodeTooLarge, "got 2147483647, want at most 1048576"},
		"slots that wrap around":               {slots(math.MaxInt32, math.MaxInt32, 8, 5), Limits{MaxTokens: math.MaxInt32}, CodeBadShape, "got 4294967307, want 11"},
		"a head of more cores than the limit":  {func(f *forgery) { slots(1, 3, 6, 2)(f); longer(12)(f) }, Limits{MaxTokens: 5}, CodeTooLarge, "got 6, want at most 5"},
		"a head of more cores than tokens":     {func(f *forgery) { slots(1, 3, 6, 2)(f); longer(12)(f) }, Limits{}, CodeBadCounts, "got 1, want 5"},
		"v of another length":                  {func(f *forgery) { f.reshape("v", 12, 4) }, Limits{}, CodeBadShape, `"v"`},
		"counts by layer and head":             {func(f *forgery) { f.reshape("counts", 1, 11) }, Limits{}, CodeBadShape, `"counts"`},
		"a bias too short":                     {func(f *forgery) { f.reshape("bias", 10) }, Limits{}, CodeBadShape, `"bias"`},
		"positions too long":                   {func(f *forgery) { f.reshape("positions", 12) }, Limits{}, CodeBadShape, `"positions"`},
		"assign of another shape":              {func(f *forgery) { f.reshape("assign", 4, 5) }, Limits{}, CodeBadShape, `"assign"`},
		"padding":                              {func(f *forgery) { copy(f.tensor("counts").data[12:], ints(0)) }, Limits{}, CodeBadCounts, "padding for core 2"},
		"a core hidden from attention":         {func(f *forgery) { copy(f.tensor("bias").data[12:], floats(float32(math.Inf(-1)))) }, Limits{}, CodeBadCounts, "core 2 at layer 0, head 1"},
		"counts that do not sum":               {func(f *forgery) { copy(f.tensor("counts").data[36:], ints(3)) }, Limits{}, CodeBadCounts, "layer 1, head 1: got 4, want 5"},
		"slots shifted by one":                 {slots(2, 2, 5, 2), Limits{}, CodeBadCounts, "layer 0, head 0: got 7, want 5"},
		"a token of another head's core":       {func(f *forgery) { copy(f.tensor("assign").data[:4], ints(1)) }, Limits{}, CodeBadCounts, "token 0 to no core"},
		"assigned unlike the counts":           {func(f *forgery) { copy(f.tensor("assign").data[20:], ints(1)) }, Limits{}, CodeBadCounts, "core 0 at layer 0, head 1: got 1, want 2"},
		"NaN in k":                             {func(f *forgery) { copy(f.tensor("k").data[8*8+2:], []byte{0x01, 0x7c}) }, Limits{}, CodeNotFinite, "layer 1, head 0, core 4, dim 1"},
		"Inf in v":                             {func(f *forgery) { copy(f.tensor("v").data[10*8:], []byte{0x00, 0x7c}) }, Limits{}, CodeNotFinite, "layer 1, head 1, core 1, dim 0"},
		"a position that is NaN":               {func(f *forgery) { copy(f.tensor("positions").data, floats(float32(math.NaN()))) }, Limits{}, CodeNotFinite, "layer 0, head 0, core 0"},
		"the padded form under the packed key": {func(f *forgery) { *f = *forge(t, encode(t, sampleCores(F16))); f.meta["packed"] = "true" }, Limits{}, CodeBadShape, `"k"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, encode(t, packedCores(F16)))
			row.change(f)
			f.meta[checksumKey] = sumTensors(f.tensors) // the fault itself is to be found, not the broken sum
			_, err := DecodeCores(f.bytes(), row.limits)
			wantRefusal(t, err, row.code, row.words)
		})
	}
}

func TestPackedCoresAppendRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		change      func(*Cores)
		code, words string
	}{
		"slots of too few heads":      {func(c *Cores) { c.Slots = c.Slots[4:] }, CodeBadShape, `"slots"`},
		"no slots at all":             {func(c *Cores) { c.Slots = []byte{} }, CodeBadShape, `"slots"`},
		"a head without a core":       {func(c *Cores) { c.Slots = ints(0, 3, 5, 3) }, CodeBadCounts, "layer 0, head 0"},
		"a negative slot":             {func(c *Cores) { c.Slots = ints(1, -1, 5, 6) }, CodeBadCounts, "layer 0, head 1"},
		"not the largest":             {func(c *Cores) { c.Cores = 6 }, CodeBadShape, "got 6, want 5"},
		"slots that promise more":     {func(c *Cores) { c.Slots = ints(1, 3, 5, 3) }, CodeBadShape, "does not fill its shape [12"},
		"short counts":                {func(c *Cores) { c.Counts = c.Counts[4:] }, CodeBadShape, `"counts"`},
		"packed by the door":          {func(c *Cores) { c.Extra = map[string]string{"packed": "true"} }, CodeBadMetadata, "own"},
		"packed by the door, padding": {func(c *Cores) { *c = *sampleCores(F16); c.Extra = map[string]string{"packed": "true"} }, CodeBadMetadata, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			c := packedCores(F16)
			row.change(c)
			got, err := c.Append([]byte("before"))
			wantRefusal(t, err, row.code, row.words)
			if string(got) != "before" {
				t.Errorf("got dst %q after an error, want it as it was", got)
			}
		})
	}
}

func TestCheckCountsOfThePackedForm(t *testing.T) {
	good := func() *Cores {
		return &Cores{Layers: 1, KVHeads: 2, Cores: 2, HeadDim: 1, Tokens: 2, Slots: ints(1, 2),
			Counts: ints(2, 1, 1), Bias: floats(0.69, 0, 0), Assign: ints(0, 0, 1, 0)}
	}
	for name, row := range map[string]struct {
		change      func(*Cores)
		code, words string // "" where nothing is wrong
	}{
		"nothing wrong":           {func(*Cores) {}, "", ""},
		"no assignment":           {func(c *Cores) { c.Assign = nil }, "", ""},
		"padding":                 {func(c *Cores) { c.Counts, c.Bias = ints(2, 2, 0), floats(0.69, 0.69, float32(math.Inf(-1))) }, CodeBadCounts, "padding for core 1"},
		"slots too short":         {func(c *Cores) { c.Slots = ints(3) }, CodeBadShape, `"slots"`},
		"slots that overflow":     {func(c *Cores) { c.Layers, c.KVHeads = math.MaxInt/2, 4 }, CodeBadShape, `"slots"`},
		"more slots than counts":  {func(c *Cores) { c.Slots = ints(2, 2) }, CodeBadShape, `"counts"`},
		"a huge slot":             {func(c *Cores) { c.Slots, c.Cores = ints(1, math.MaxInt32), math.MaxInt32 }, CodeBadShape, `"counts"`},
		"another number of cores": {func(c *Cores) { c.Cores = 3 }, CodeBadShape, "largest"},
		"a core outside its head": {func(c *Cores) { c.Assign = ints(0, 1, 1, 0) }, CodeBadCounts, "token 1 to no core"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			row.change(c)
			err := c.CheckCounts()
			if row.code != "" {
				wantRefusal(t, err, row.code, row.words)
			} else if err != nil {
				t.Errorf("got %v, want no error", err)
			}
		})
	}
}
