package page

import (
	"strings"
	"testing"
)

func TestDTypeNames(t *testing.T) {
	sizes := map[DType]int{BF16: 2, F16: 2, F32: 4, F8E4M3: 1, F8E5M2: 1}
	names := map[DType]string{BF16: "BF16", F16: "F16", F32: "F32", F8E4M3: "F8_E4M3", F8E5M2: "F8_E5M2"}
	for d, name := range names {
		if got, err := ParseDType(name); got != d || err != nil {
			t.Errorf("ParseDType(%q): got %v, %v, want %v", name, got, err, d)
		}
		if d.String() != name || d.Size() != sizes[d] {
			t.Errorf("got %s of %d bytes, want %s of %d", d, d.Size(), name, sizes[d])
		}
	}
	for _, name := range []string{"", "bf16", "I32", "F64", "DType(0)"} {
		_, err := ParseDType(name)
		wantRefusal(t, err, CodeBadDType, "unknown")
	}
	if got := DType(0).Size(); got != 0 {
		t.Errorf("the zero DType has %d bytes, want 0", got)
	}
}

func TestIntsNeedNoAlignment(t *testing.T) {
	want := []int64{0, 1, -1, 1<<31 - 1, -1 << 31}
	narrow := make([]int32, len(want))
	for i, v := range want {
		narrow[i] = int32(v)
	}
	for name, v := range map[string]Ints{"I32": IntsOf(narrow), "I64": Ints64Of(want)} {
		moved := Ints{b: append([]byte{0xff}, v.b...)[1:], wide: v.wide}
		if moved.Len() != len(want) {
			t.Errorf("%s: got %d values, want %d", name, moved.Len(), len(want))
		}
		for i := range want {
			if got := moved.At(i); got != want[i] {
				t.Errorf("%s: got %d at %d, want %d", name, got, i, want[i])
			}
		}
	}
	if got := (Ints{}).Len(); got != 0 {
		t.Errorf("the zero Ints holds %d values, want 0", got)
	}
}

func TestRopeIsReadAndWritten(t *testing.T) {
	for text, want := range map[string]Rope{
		`{"type": "default", "theta": 10000.0, "rotary_dim": 64, "interleaved": false}`: {Type: "default", Theta: 10000, RotaryDim: 64},
		`{"interleaved":true,"rotary_dim":2,"theta":1e6,"type":"linear","factor":2}`:    {Type: "linear", Theta: 1e6, RotaryDim: 2, Interleaved: true, Factor: 2},
		`{"type":"llama3","theta":500000,"rotary_dim":64,"interleaved":false,"original_max_position":8192,"factor":8,"low_freq_factor":1,"high_freq_factor":4}`: {
			Type: "llama3", Theta: 500000, RotaryDim: 64, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 8192},
		`{"type":"yarn","theta":10000,"rotary_dim":64,"interleaved":false,"factor":4.5,"attention_factor":1.1,"beta_fast":32,"beta_slow":1,"original_max_position":4096}`: {
			Type: "yarn", Theta: 10000, RotaryDim: 64, Factor: 4.5, AttentionFactor: 1.1, BetaFast: 32, BetaSlow: 1, OriginalMaxPosition: 4096},
		`{"type":"none"}`: {Type: "none"},
	} {
		got, err := parseRope(text, 64)
		if err != nil || got != want {
			t.Errorf("parse %s: got %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := parseRope(got.json(), 64); again != want || err != nil {
			t.Errorf("parse what was written, %s: got %+v, %v, want %+v", got.json(), again, err, want)
		}
	}
}

func TestRopeRefusesWhatItDoesNotKnow(t *testing.T) {
	const base = `"type":"default","theta":10000,"rotary_dim":64,"interleaved":false`
	for text, words := range map[string]string{
		``:                                          "the end",
		`[]`:                                        "'{'",
		`{` + base + `} x`:                          "the end",
		`{` + base + `,"type":""}`:                  "repeats a key",
		`{` + base + `,"Theta":1}`:                  `"Theta"`,
		`{` + base + `,"mscale":1}`:                 `"mscale"`,
		`{` + base + `,"factor":0}`:                 "positive",
		`{` + base + `,"factor":-2}`:                "positive",
		`{` + base + `,"factor":1e999}`:             "finite",
		`{` + base + `,"factor":null}`:              "a number",
		`{` + base + `,"original_max_position":0}`:  "positive",
		`{` + base + `,"original_max_position":.5}`: "a number",
		`{"type":"mrope","theta":1,"rotary_dim":2,"interleaved":false}`:      `"mrope"`,
		`{"type":"default","theta":0,"rotary_dim":2,"interleaved":false}`:    "theta",
		`{"type":"default","theta":-1,"rotary_dim":2,"interleaved":false}`:   "theta",
		`{"type":"default","theta":"1","rotary_dim":2,"interleaved":false}`:  "a number",
		`{"type":"default","theta":NaN,"rotary_dim":2,"interleaved":false}`:  "a number",
		`{"type":"default","theta":1,"rotary_dim":3,"interleaved":false}`:    "even",
		`{"type":"default","theta":1,"rotary_dim":66,"interleaved":false}`:   "head_dim 64",
		`{"type":"default","theta":1,"rotary_dim":-2,"interleaved":false}`:   "rotary_dim",
		`{"type":"default","theta":1,"rotary_dim":0,"interleaved":false}`:    "type none",
		`{"type":"default","theta":1,"rotary_dim":64.5,"interleaved":false}`: "whole number",
		`{"type":"default","theta":1,"rotary_dim":2,"interleaved":0}`:        "true or false",
		`{"type":"default","theta":1,"rotary_dim":2}`:                        "no interleaved",
		`{"type":"none","rotary_dim":1}`:                                     "even",
		`{}`:                                                                 "no type",
	} {
		_, err := parseRope(text, 64)
		if err == nil {
			t.Errorf("parse %s: got no error, want one with %q", text, words)
			continue
		}
		wantRefusal(t, err, CodeBadRope, words)
	}
}

func TestFingerprintTellsLayoutsApart(t *testing.T) {
	seen := map[string]string{}
	for name, got := range map[string]string{
		"base":            Fingerprint("vllm", "0.11.0", "BHTD", 16, 8, 128),
		"another engine":  Fingerprint("tgi", "0.11.0", "BHTD", 16, 8, 128),
		"another version": Fingerprint("vllm", "0.11.1", "BHTD", 16, 8, 128),
		"another order":   Fingerprint("vllm", "0.11.0", "BTHD", 16, 8, 128),
		"other sizes":     Fingerprint("vllm", "0.11.0", "BHTD", 8, 16, 128),
		"no sizes":        Fingerprint("vllm", "0.11.0", "BHTD"),
		"a moved dot":     Fingerprint("vllm.0", "11.0", "BHTD", 16, 8, 128),
	} {
		if other, twice := seen[got]; twice {
			t.Errorf("%s and %s have one fingerprint %s", name, other, got)
		}
		seen[got] = name
		if err := checkName("layout", got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, again := Fingerprint("vllm", "0.11.0", "BHTD", 16), Fingerprint("vllm", "0.11.0", "BHTD", 16); got != again || !strings.HasPrefix(got, "vllm.0.11.0.BHTD.16.") {
		t.Errorf("got %s and %s, want one readable fingerprint", got, again)
	}
}

func TestCheckLayoutRefusesAnotherLayout(t *testing.T) {
	p := samplePage(F16)
	for _, want := range []string{"", p.Layout} {
		if err := p.CheckLayout(want); err != nil {
			t.Errorf("CheckLayout(%q): got %v, want no error", want, err)
		}
	}
	wantRefusal(t, p.CheckLayout("vllm.0.11.0.BHTD"), CodeLayout, `got "hf.llama.LHTD", want "vllm.0.11.0.BHTD"`)
}

func TestDigestIsTheContentAndNothingElse(t *testing.T) {
	base := fullPage(F8E4M3).Digest()
	for name, change := range map[string]func(*Page){
		"sequence":    func(p *Page) { p.Sequence = "request-2" },
		"page":        func(p *Page) { p.Page, p.Pages = 2, 9 },
		"extra":       func(p *Page) { p.Extra = nil },
		"checksummed": func(p *Page) { p.Checksummed = false },
	} {
		p := fullPage(F8E4M3)
		change(p)
		if p.Digest() != base {
			t.Errorf("another %s gives another digest, want the same", name)
		}
	}
	seen := map[[32]byte]string{base: "the page itself"}
	for name, change := range map[string]func(*Page){
		"model":               func(p *Page) { p.Model = "llama-3-70b" },
		"layout":              func(p *Page) { p.Layout = "vllm" },
		"model/layout":        func(p *Page) { p.Model, p.Layout = p.Model+p.Layout[:1], p.Layout[1:] },
		"rope":                func(p *Page) { p.Rope.Theta = 500000 },
		"layer_first":         func(p *Page) { p.LayerFirst++ },
		"token_first":         func(p *Page) { p.TokenFirst++ },
		"tokens_total":        func(p *Page) { p.TokensTotal++ },
		"dtype":               func(p *Page) { p.DType = F8E5M2 },
		"shape":               func(p *Page) { p.Layers, p.KVHeads = 1, 4 },
		"k":                   func(p *Page) { p.K[0] ^= 1 },
		"v":                   func(p *Page) { p.V[79] ^= 1 },
		"k_scale":             func(p *Page) { p.KScale[0] ^= 1 },
		"v_scale":             func(p *Page) { p.VScale[0] ^= 1 },
		"token_ids":           func(p *Page) { p.TokenIDs = IntsOf([]int32{5, 0, 7, 5, 1278}) },
		"positions":           func(p *Page) { p.Positions = IntsOf([]int32{16, 17, 18, 20, 22}) },
		"q":                   func(p *Page) { p.Q[0] ^= 1 },
		"no q":                func(p *Page) { p.Q, p.QDType, p.QHeads, p.Window = nil, 0, 0, 0 },
		"q's shape":           func(p *Page) { p.QHeads, p.Window = 2, 6 },
		"boundary":            func(p *Page) { p.Boundary[0] = 1 },
		"protect":             func(p *Page) { p.Protect[4] = 1 },
		"mark, only protect":  func(p *Page) { p.Boundary = nil; p.Protect = []byte{0, 1, 0, 0, 1} },
		"mark, only boundary": func(p *Page) { p.Protect = nil; p.Boundary = []byte{0, 1, 0, 0, 1} },
		"swapped marks":       func(p *Page) { p.Boundary, p.Protect = p.Protect, p.Boundary },
	} {
		p := fullPage(F8E4M3)
		change(p)
		got := p.Digest()
		if other, twice := seen[got]; twice {
			t.Errorf("another %s gives the digest of %s, want another digest", name, other)
		}
		seen[got] = name
	}
}
