package page

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

var allDTypes = []DType{BF16, F16, F32, F8E4M3, F8E5M2}

func TestDecodeOfAppendIsThePage(t *testing.T) {
	wide := samplePage(BF16)
	wide.TokenIDs, wide.Positions = Ints64Of([]int64{5, 0, 7, 5, 1279}), Ints64Of([]int64{16, 17, 18, 20, 1<<31 - 1})
	mixed := fullPage(F8E4M3)
	mixed.QDType, mixed.Q = F32, pattern(F32, 96, 3)
	text := samplePage(F16)
	text.Extra = map[string]string{"note": "tab\t quote\" slash\\ é \u2028 \x01 \uFFFD", "": "an empty key"}
	pages := map[string]*Page{"I64 ids and positions": wide, "FP8 with F32 queries": mixed, "any text": text}
	for _, d := range allDTypes {
		pages[d.String()], pages[d.String()+" with everything"] = samplePage(d), fullPage(d)
	}
	for name, want := range pages {
		t.Run(name, func(t *testing.T) {
			blob := encode(t, want)
			got, err := Decode(blob, Limits{})
			if err != nil {
				t.Fatalf("Decode: %v", err)
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

func TestDecodeCopiesNoTensor(t *testing.T) {
	blob := encode(t, fullPage(BF16))
	p, err := Decode(blob, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	model, k0 := p.Model, p.K[0]
	for i := range blob {
		blob[i] ^= 0x01
	}
	if p.K[0] == k0 {
		t.Errorf("K did not follow the blob, want it to alias the blob")
	}
	if p.Model != model {
		t.Errorf("got model %q after the blob changed, want %q: strings are copies", p.Model, model)
	}
	if cap(p.K) != len(p.K) {
		t.Errorf("got cap(K) %d, want %d: an append must not reach the next tensor", cap(p.K), len(p.K))
	}
}

func TestDecodeAllocatesOnlyTheHeader(t *testing.T) {
	big := samplePage(F16)
	big.Tokens, big.TokensTotal = 4096, 1<<20
	big.K, big.V = pattern(F16, 4*4096*4, 1), pattern(F16, 4*4096*4, 2)
	at := make([]int32, 4096)
	for i := range at {
		at[i] = int32(i)
	}
	big.TokenIDs, big.Positions = IntsOf(at), IntsOf(at)
	blob := encode(t, big)
	if got, most := allocated(func() { _, _ = Decode(blob, Limits{}) }), uint64(16<<10); got > most {
		t.Errorf("decoding %d bytes allocated %d, want at most %d", len(blob), got, most)
	}
}

func TestAppendKeepsWhatIsThereAndReusesRoom(t *testing.T) {
	p := fullPage(F16)
	blob := encode(t, p)
	dst := append(make([]byte, 0, len(blob)+64), "before"...)
	got, err := p.Append(dst)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, append([]byte("before"), blob...)) {
		t.Errorf("got other bytes than the prefix and the blob")
	}
	if &got[0] != &dst[0] {
		t.Errorf("dst had room and was not reused")
	}
}

func TestAppendAlignsTheTensors(t *testing.T) {
	for n := range 9 { // each length of the metadata moves the header's end
		p := samplePage(F32)
		p.Extra = map[string]string{"pad": string(bytes.Repeat([]byte{'x'}, n))}
		blob := encode(t, p)
		c, err := open(blob, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if start := len(blob) - len(c.body); start%8 != 0 {
			t.Errorf("got tensors at byte %d, want a multiple of 8", start)
		}
	}
}

func TestAppendRefusesWhatDecodeWouldRefuse(t *testing.T) {
	for name, row := range map[string]struct {
		change      func(*Page)
		code, words string
	}{
		"no element type":       {func(p *Page) { p.DType = 0 }, CodeBadDType, "element type"},
		"no token":              {func(p *Page) { p.Tokens = 0 }, CodeEmpty, "no token"},
		"a short k":             {func(p *Page) { p.K = p.K[1:] }, CodeBadShape, `"k"`},
		"a long v":              {func(p *Page) { p.V = append(p.V, 0) }, CodeBadShape, `"v"`},
		"a negative size":       {func(p *Page) { p.HeadDim = -4 }, CodeBadShape, "head_dim"},
		"an overflowing shape":  {func(p *Page) { p.Layers, p.KVHeads = 1<<40, 1<<40; p.QHeads = 1 << 40 }, CodeBadShape, `"k"`},
		"too few ids":           {func(p *Page) { p.TokenIDs = IntsOf([]int32{1}) }, CodeBadShape, `"token_ids"`},
		"too few marks":         {func(p *Page) { p.Protect = []byte{1} }, CodeBadShape, `"protect"`},
		"scales without FP8":    {func(p *Page) { p.KScale = scales(4) }, CodeBadScale, `"k_scale"`},
		"FP8 without scales":    {func(p *Page) { p.DType, p.K, p.V = F8E5M2, pattern(F8E5M2, 80, 1), pattern(F8E5M2, 80, 1) }, CodeBadScale, `"k_scale"`},
		"query heads":           {func(p *Page) { p.QHeads = 3 }, CodeBadShape, `"q"`},
		"sizes of no query":     {func(p *Page) { p.Q = nil }, CodeBadShape, `"q"`},
		"queries in FP8":        {func(p *Page) { p.QDType = F8E4M3 }, CodeBadDType, `"q"`},
		"a bad rope":            {func(p *Page) { p.Rope.Theta = 0 }, CodeBadRope, "theta"},
		"no model":              {func(p *Page) { p.Model = "" }, CodeBadMetadata, `"model"`},
		"a page of no sequence": {func(p *Page) { p.Pages = 0 }, CodeBadMetadata, `"page"`},
		"a reserved key":        {func(p *Page) { p.Extra = map[string]string{"model": "x"} }, CodeBadMetadata, "own"},
		"a forged checksum":     {func(p *Page) { p.Extra = map[string]string{"checksum": "x"} }, CodeBadMetadata, "own"},
		"no UTF-8":              {func(p *Page) { p.Extra = map[string]string{"x": "\xff"} }, CodeBadMetadata, "UTF-8"},
		"a long value":          {func(p *Page) { p.Extra = map[string]string{"x": string(make([]byte, 3000))} }, CodeTooLarge, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			p := fullPage(F16)
			row.change(p)
			dst := []byte("before")
			got, err := p.Append(dst)
			wantRefusal(t, err, row.code, row.words)
			if string(got) != "before" {
				t.Errorf("got dst %q after an error, want it as it was", got)
			}
		})
	}
}

func TestDemoPagesSurviveReencoding(t *testing.T) {
	files, err := filepath.Glob(filepath.FromSlash("../../configs/demo/*.page.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d demo pages (%v), want some", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			blob, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Decode(blob, DefaultLimits())
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			shape := []int{p.Layers, p.KVHeads, p.HeadDim, p.QHeads, p.Window}
			if want := []int{5, 2, 64, 4, 16}; !slices.Equal(shape, want) || p.DType != F16 || p.Model != "tinylm" || p.TokensTotal != p.Tokens {
				t.Errorf("got layers, heads, dim, q_heads, window %v of %v, model %s, %d of %d tokens; want %v of F16, tinylm, all tokens", shape, p.DType, p.Model, p.Tokens, p.TokensTotal, want)
			}
			if want := (Rope{Type: "default", Theta: 10000, RotaryDim: 64}); p.Rope != want {
				t.Errorf("got rope %+v, want %+v", p.Rope, want)
			}
			again, err := Decode(encode(t, p), DefaultLimits())
			if err != nil {
				t.Fatalf("decode the re-encoded page: %v", err)
			}
			if !reflect.DeepEqual(again, p) {
				t.Errorf("the re-encoded page differs from the page")
			}
			if again.Digest() != p.Digest() {
				t.Errorf("the re-encoded page has another digest")
			}
		})
	}
}
