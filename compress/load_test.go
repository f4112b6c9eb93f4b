package compress_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/oracle"
)

// tensors is a safetensors file, read without any of the care of the wire decoder: the files are the project's own.
type tensors map[string]tensor

type tensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
	data    []byte
}

func readTensors(t testing.TB, file string) tensors {
	t.Helper()
	blob, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(blob)
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(blob[8:8+n], &raw); err != nil {
		t.Fatal(err)
	}
	out := tensors{}
	for name, r := range raw {
		if name == "__metadata__" {
			continue
		}
		var x tensor
		if err := json.Unmarshal(r, &x); err != nil {
			t.Fatal(err)
		}
		x.data = blob[8+int(n)+x.Offsets[0] : 8+int(n)+x.Offsets[1]]
		out[name] = x
	}
	return out
}

func (x tensor) ints() []int32 {
	out := make([]int32, len(x.data)/4)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32(x.data[4*i:]))
	}
	return out
}

func (x tensor) floats() []float32 {
	out := make([]float32, len(x.data)/4)
	if x.DType == "F16" {
		out = make([]float32, len(x.data)/2)
		for i := range out {
			out[i] = half(binary.LittleEndian.Uint16(x.data[2*i:]))
		}
		return out
	}
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(x.data[4*i:]))
	}
	return out
}

// half widens F16 by the definition, apart from the code under test.
func half(h uint16) float32 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	e, m := int(h>>10&31), float64(h&0x3ff)
	if e == 0 {
		return float32(sign * math.Ldexp(m, -24))
	}
	return float32(sign * math.Ldexp(1024+m, e-25))
}

// page is a real page with the outputs that the reference expects for it.
type page struct {
	name     string
	in       compress.Input
	expected tensors
}

// pages loads the pages in the repository and, where they lie beside it, those that may only be used for measuring.
func pages(t testing.TB) []page {
	t.Helper()
	dirs := map[string]string{"kjv": "../configs/demo", "kjv_facts": "../configs/demo", "kjv_long": "../configs/demo"}
	shared := "../../shared/data/pages"
	if _, err := os.Stat(shared); err == nil {
		dirs["man"], dirs["recall"] = shared, shared
	} else if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "shared") {
		t.Fatalf("SEMPROXY_TEST_REQUIRE names shared, but %v", err)
	}
	var out []page
	for name, dir := range dirs {
		out = append(out, loadPage(t, dir, name))
	}
	slices.SortFunc(out, func(a, b page) int { return strings.Compare(a.name, b.name) })
	return out
}

func loadPage(t testing.TB, dir, name string) page {
	x := readTensors(t, filepath.Join(dir, name+".page.safetensors"))
	k, q := x["k"], x["q"]
	return page{
		name: name,
		in: compress.Input{
			DType: compress.F16, Layers: k.Shape[0], Heads: k.Shape[1], Tokens: k.Shape[2], Dim: k.Shape[3],
			K: k.data, V: x["v"].data, Positions: x["positions"].ints(), Boundary: x["boundary"].data,
			Rope: compress.Rope{Type: "default", Theta: 10000, Dim: 64},
			Q:    q.data, QDType: compress.F16, QHeads: q.Shape[1], QWindow: q.Shape[2],
		},
		expected: readTensors(t, filepath.Join(dir, name+".expected.safetensors")),
	}
}

// widened is the page as the oracle takes it.
func (p *page) widened(t testing.TB) *oracle.Page {
	freq, err := p.in.Rope.Frequencies()
	if err != nil {
		t.Fatal(err)
	}
	cut := func(b []byte, heads, rows int) [][][][]float64 {
		x := tensor{DType: "F16", data: b}.floats()
		out := make([][][][]float64, p.in.Layers)
		for l := range out {
			out[l] = make([][][]float64, heads)
			for h := range out[l] {
				out[l][h] = make([][]float64, rows)
				for i := range out[l][h] {
					row := make([]float64, p.in.Dim)
					for k := range row {
						row[k], x = float64(x[0]), x[1:]
					}
					out[l][h][i] = row
				}
			}
		}
		return out
	}
	out := &oracle.Page{K: cut(p.in.K, p.in.Heads, p.in.Tokens), V: cut(p.in.V, p.in.Heads, p.in.Tokens), Positions: p.in.Positions, Before: p.in.Before, Behind: p.in.Behind,
		Boundary: p.in.Boundary, Freq: freq, Q: cut(p.in.Q, p.in.QHeads, p.in.QWindow), QPositions: p.in.QPositions}
	for i := 0; i < len(p.in.Importance); i += p.in.Tokens {
		var row []float64
		for _, x := range p.in.Importance[i : i+p.in.Tokens] {
			row = append(row, float64(x))
		}
		out.Importance = append(out.Importance, row)
	}
	return out
}

// variants are the option sets of the expected files, by the middle of the tensors' names.
func variants() map[string]compress.Options {
	rec := compress.Semantic()
	rec.Budget, rec.Shared, rec.Exact = compress.Equal, true, 0.5
	model := compress.Semantic()
	model.Shared = true
	return map[string]compress.Options{"rec": rec, "model": model, "paper": compress.Paper()}
}
