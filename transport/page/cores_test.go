package page

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeCoresOfAppendIsTheCores(t *testing.T) {
	bare := sampleCores(F32)
	bare.Assign, bare.Fidelity, bare.Policy, bare.PolicyDigest, bare.Rule, bare.Engine, bare.TraceParent, bare.Ratio = nil, nil, "", "", "", "", "", 0
	extra := sampleCores(F16)
	extra.Extra = map[string]string{"object": "sha256:00"}
	all := map[string]*Cores{"only what is required": bare, "extra metadata": extra}
	for _, d := range allDTypes {
		all[d.String()] = sampleCores(d)
		all[d.String()+", packed"] = packedCores(d)
		all[d.String()+", with dropped tokens"] = evicted(sampleCores(d))
		all[d.String()+", packed, with dropped tokens"] = evicted(packedCores(d))
	}
	unassigned := evicted(packedCores(BF16))
	unassigned.Assign = nil
	all["dropped tokens that no assignment names"] = unassigned
	for name, want := range all {
		t.Run(name, func(t *testing.T) {
			blob := encode(t, want)
			got, err := DecodeCores(blob, Limits{})
			if err != nil {
				t.Fatalf("DecodeCores: %v", err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if again := encode(t, got); !bytes.Equal(again, blob) {
				t.Errorf("the second encoding differs from the first")
			}
		})
	}
}

func TestDecodeCoresRefusesBadCores(t *testing.T) {
	put := func(name string, at int, bits ...byte) func(*forgery) {
		return func(f *forgery) { copy(f.tensor(name).data[at:], bits) }
	}
	meta := func(key, value string) func(*forgery) { return func(f *forgery) { f.meta[key] = value } }
	for name, row := range map[string]struct {
		dtype       DType
		change      func(*forgery)
		code, words string
	}{
		"a page for cores":             {F16, meta("format", FormatPage), CodeBadFormat, FormatCores},
		"no tokens":                    {F16, func(f *forgery) { delete(f.meta, "tokens") }, CodeBadMetadata, `"tokens"`},
		"zero tokens":                  {F16, meta("tokens", "0"), CodeEmpty, "no token"},
		"more tokens than the limit":   {F16, meta("tokens", "1048577"), CodeTooLarge, `"tokens"`},
		"a ratio that is no number":    {F16, meta("ratio", "half"), CodeBadMetadata, `"half"`},
		"a ratio that is NaN":          {F16, meta("ratio", "NaN"), CodeBadMetadata, `"ratio"`},
		"a negative ratio":             {F16, meta("ratio", "-1"), CodeBadMetadata, `"ratio"`},
		"no checksum":                  {F16, func(f *forgery) { delete(f.meta, "checksum") }, CodeBadMetadata, `"checksum"`},
		"another checksum":             {F16, meta("checksum", strings.Repeat("0", 64)), CodeBadChecksum, "checksum"},
		"a flipped bit":                {F16, put("v", 7, 0x2a), CodeBadChecksum, "checksum"},
		"no counts":                    {F16, func(f *forgery) { f.drop("counts") }, CodeMissingTensor, `"counts"`},
		"counts in F32":                {F16, func(f *forgery) { f.tensor("counts").elem = elemF32 }, CodeBadDType, `"counts"`},
		"counts of another shape":      {F16, func(f *forgery) { f.reshape("counts", 2, 6) }, CodeBadShape, `"counts"`},
		"a bias too short":             {F16, func(f *forgery) { f.reshape("bias", 2, 2, 2) }, CodeBadShape, `"bias"`},
		"assign of another shape":      {F16, func(f *forgery) { f.reshape("assign", 2, 2, 4) }, CodeBadShape, `"assign"`},
		"no core":                      {F16, func(f *forgery) { f.reshape("k", 2, 2, 0, 4) }, CodeEmpty, "core"},
		"k of three dimensions":        {F16, func(f *forgery) { f.reshape("k", 4, 3, 4) }, CodeBadShape, `"k"`},
		"v of another shape":           {F16, func(f *forgery) { f.reshape("v", 2, 2, 4, 4) }, CodeBadShape, `"v"`},
		"an unknown tensor":            {F16, func(f *forgery) { f.tensor("assign").name = "labels" }, CodeUnknownTensor, `"labels"`},
		"NaN in k":                     {F16, put("k", 0, 0x01, 0x7c), CodeNotFinite, "core 0"},
		"Inf in v":                     {BF16, put("v", 0, 0x80, 0x7f), CodeNotFinite, `"v"`},
		"a position that is Inf":       {F16, put("positions", 4*5, 0, 0, 0x80, 0x7f), CodeNotFinite, "layer 0, head 1, core 2"},
		"FP8 without v_scale":          {F8E4M3, func(f *forgery) { f.drop("v_scale") }, CodeBadScale, `"v_scale"`},
		"a scale of 0":                 {F8E4M3, put("k_scale", 0, 0, 0, 0, 0), CodeBadScale, `"k_scale"`},
		"counts that do not sum":       {F16, put("counts", 0, 2), CodeBadCounts, "layer 0, head 0: got 6, want 5"},
		"tokens that nobody counted":   {F16, func(f *forgery) { f.meta["tokens"] = "6"; f.drop("assign") }, CodeBadCounts, "got 5, want 6"},
		"a negative count":             {F16, put("counts", 0, 0xff, 0xff, 0xff, 0xff), CodeBadCounts, "negative"},
		"padding that attention sees":  {F16, put("bias", 44, 0, 0, 0, 0), CodeBadCounts, "padding 2"},
		"a core hidden from attention": {F16, put("bias", 0, 0, 0, 0x80, 0xff), CodeBadCounts, "not finite for core 0"},
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, encode(t, sampleCores(row.dtype)))
			sum := f.meta[checksumKey]
			row.change(f)
			if kept, has := f.meta[checksumKey]; has && kept == sum && row.code != CodeBadChecksum {
				f.meta[checksumKey] = sumTensors(f.tensors) // the fault itself is to be found, not the broken sum
			}
			_, err := DecodeCores(f.bytes(), DefaultLimits())
			wantRefusal(t, err, row.code, row.words)
		})
	}
}

// dropping says that these many tokens of each head were dropped.
func dropping(c *Cores, heads ...int32) *Cores {
	c.Dropped = ints(heads...)
	return c
}

func TestDecodeCoresRefusesBadDroppedTokens(t *testing.T) {
	put := func(name string, at int, value int32) func(*forgery) {
		return func(f *forgery) { copy(f.tensor(name).data[4*at:], ints(value)) }
	}
	for name, row := range map[string]struct {
		change      func(*forgery)
		code, words string
	}{
		"dropped in F32":               {func(f *forgery) { f.tensor("dropped").elem = elemF32 }, CodeBadDType, `"dropped"`},
		"dropped of one dimension":     {func(f *forgery) { f.tensor("dropped").shape = []int{4} }, CodeBadShape, `"dropped"`},
		"dropped of each token":        {func(f *forgery) { f.reshape("dropped", 2, 2, 5) }, CodeBadShape, `"dropped"`},
		"dropped tokens without a sum": {func(f *forgery) { f.drop("dropped") }, CodeBadCounts, "layer 0, head 1: got 4, want 5"},
		"one dropped too many":         {put("dropped", 0, 1), CodeBadCounts, "layer 0, head 0: got 6, want 5"},
		"a whole head dropped":         {put("dropped", 2, 5), CodeBadCounts, "layer 1, head 0: got 5, want from 0 to 4"},
		"a head that got tokens":       {put("dropped", 3, -1), CodeBadCounts, "layer 1, head 1: got -1"},
		"a dropped token with a core":  {put("assign", 8, 0), CodeBadCounts, "dropped tokens at layer 0, head 1: got 0, want 1"},
		"a token of no core":           {put("assign", 0, -2), CodeBadCounts, "token 0 to no core"},
	} {
		for form, good := range map[string]*Cores{"padded": sampleCores(F16), "packed": packedCores(F16)} {
			t.Run(name+", "+form, func(t *testing.T) {
				f := forge(t, encode(t, evicted(good)))
				row.change(f)
				f.meta[checksumKey] = sumTensors(f.tensors)
				_, err := DecodeCores(f.bytes(), DefaultLimits())
				wantRefusal(t, err, row.code, row.words)
			})
		}
	}
}

func TestCheckCountsProvesThatNothingWasLost(t *testing.T) {
	inf := float32(math.Inf(-1))
	oneHead := func(counts []byte, bias []byte, assign []byte, tokens int) *Cores {
		return &Cores{Layers: 1, KVHeads: 1, Cores: len(counts) / 4, HeadDim: 1, Tokens: tokens, Counts: counts, Bias: bias, Assign: assign}
	}
	for name, row := range map[string]struct {
		cores *Cores
		words string // "" where nothing is wrong
	}{
		"every token its own core":    {oneHead(ints(1, 1), floats(0, 0), ints(1, 0), 2), ""},
		"one core for all":            {oneHead(ints(3), floats(1.0986), ints(0, 0, 0), 3), ""},
		"no assignment":               {oneHead(ints(2, 1), floats(0.69, 0), nil, 3), ""},
		"padding at the end":          {oneHead(ints(2, 0, 0), floats(0.69, inf, inf), ints(0, 0), 2), ""},
		"padding before a core":       {oneHead(ints(0, 2), floats(inf, 0.69), nil, 2), "only at the end"},
		"only padding":                {oneHead(ints(0), floats(inf), nil, 2), "got 0, want 2"},
		"padding with bias 0":         {oneHead(ints(2, 0), floats(0.69, 0), nil, 2), "-Inf"},
		"a bias that is NaN":          {oneHead(ints(2), floats(float32(math.NaN())), nil, 2), "NaN"},
		"a token twice":               {oneHead(ints(2, 1), floats(0.69, 0), nil, 2), "got 3, want 2"},
		"counts that wrap around":     {oneHead(ints(math.MaxInt32, math.MaxInt32, 4), floats(0, 0, 0), nil, 2), "got 4294967298, want 2"},
		"assigned to no core":         {oneHead(ints(2, 1), floats(0.69, 0), ints(0, 0, 2), 3), "token 2 to no core"},
		"assigned to a negative core": {oneHead(ints(2, 1), floats(0.69, 0), ints(-1, 0, 1), 3), "token 0 to no core"},
		"assigned unlike the counts":  {oneHead(ints(2, 1), floats(0.69, 0), ints(0, 1, 1), 3), "count of core 0 at layer 0, head 0: got 1, want 2"},
		"a short assignment":          {oneHead(ints(2, 1), floats(0.69, 0), ints(0, 0), 3), `"assign"`},
		"a short bias":                {oneHead(ints(2, 1), floats(0.69), nil, 3), `"bias"`},
		"nothing at all":              {&Cores{}, "at least 1"},

		"dropped, and said":              {dropping(oneHead(ints(2, 1), floats(0.69, 0), ints(-1, 0, 1, -1, 0), 5), 2), ""},
		"dropped, without an assignment": {dropping(oneHead(ints(2, 1), floats(0.69, 0), nil, 5), 2), ""},
		"none dropped, and said":         {dropping(oneHead(ints(2, 1), floats(0.69, 0), ints(1, 0, 0), 3), 0), ""},
		"dropped, and not said":          {oneHead(ints(2, 1), floats(0.69, 0), nil, 5), "got 3, want 5"},
		"assigned to -1, and not said":   {oneHead(ints(2, 1), floats(0.69, 0), ints(0, -1, 1), 3), "token 1 to no core"},
		"more dropped than said":         {dropping(oneHead(ints(2, 1), floats(0.69, 0), nil, 5), 1), `tensors "counts" and "dropped" do not sum`},
		"fewer dropped than said":        {dropping(oneHead(ints(2, 1), floats(0.69, 0), nil, 5), 3), "got 6, want 5"},
		"all dropped":                    {dropping(oneHead(ints(0), floats(inf), nil, 5), 5), "out of range at layer 0, head 0: got 5, want from 0 to 4"},
		"a negative number dropped":      {dropping(oneHead(ints(3), floats(1.1), nil, 2), -1), "got -1, want from 0 to 1"},
		"more dropped than tokens":       {dropping(oneHead(ints(3), floats(1.1), nil, 3), math.MaxInt32), "got 2147483647, want from 0 to 2"},
		"a dropped token with a core":    {dropping(oneHead(ints(2, 1), floats(0.69, 0), ints(0, 0, 1, 1), 4), 1), "dropped tokens at layer 0, head 0: got 0, want 1"},
		"a token with a core dropped":    {dropping(oneHead(ints(2, 1), floats(0.69, 0), ints(-1, -1, 0, 1), 4), 1), "got 2, want 1"},
		"dropped as -2":                  {dropping(oneHead(ints(2, 1), floats(0.69, 0), ints(0, 0, 1, -2), 4), 1), "token 3 to no core at layer 0, head 0: got -2"},
		"dropped of too many heads":      {dropping(oneHead(ints(2, 1), floats(0.69, 0), nil, 4), 1, 0), `"dropped"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.cores.CheckCounts()
			if row.words == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			code := CodeBadCounts
			if row.words[0] == '"' || row.words == "at least 1" {
				code = CodeBadShape
			}
			wantRefusal(t, err, code, row.words)
		})
	}
}

func TestCoresAppendRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		change      func(*Cores)
		code, words string
	}{
		"no element type":        {func(c *Cores) { c.DType = 0 }, CodeBadDType, "element type"},
		"no token":               {func(c *Cores) { c.Tokens = 0 }, CodeEmpty, "no token"},
		"no core":                {func(c *Cores) { c.Cores = 0 }, CodeBadShape, "rows"},
		"short counts":           {func(c *Cores) { c.Counts = c.Counts[4:] }, CodeBadShape, `"counts"`},
		"a short assignment":     {func(c *Cores) { c.Assign = c.Assign[4:] }, CodeBadShape, `"assign"`},
		"too few dropped":        {func(c *Cores) { c.Dropped = ints(0, 0, 0) }, CodeBadShape, `"dropped"`},
		"scales without FP8":     {func(c *Cores) { c.VScale = scales(4) }, CodeBadScale, `"v_scale"`},
		"a ratio that is NaN":    {func(c *Cores) { c.Ratio = math.NaN() }, CodeBadMetadata, `"ratio"`},
		"no sequence":            {func(c *Cores) { c.Sequence = "" }, CodeBadMetadata, `"sequence"`},
		"a fidelity by the door": {func(c *Cores) { c.Extra = map[string]string{"fidelity.x": "1"} }, CodeBadMetadata, "own"},
		"a policy by the door":   {func(c *Cores) { c.Policy = ""; c.Extra = map[string]string{"policy": "x"} }, CodeBadMetadata, "own"},
		"too much metadata":      {func(c *Cores) { c.Extra = many(64) }, CodeTooLarge, "too many keys"},
	} {
		t.Run(name, func(t *testing.T) {
			c := sampleCores(F16)
			row.change(c)
			got, err := c.Append([]byte("before"))
			wantRefusal(t, err, row.code, row.words)
			if string(got) != "before" {
				t.Errorf("got dst %q after an error, want it as it was", got)
			}
		})
	}
}

func many(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[strings.Repeat("x", i+1)] = ""
	}
	return m
}
