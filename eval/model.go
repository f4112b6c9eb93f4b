package eval

import (
	"fmt"
	"maps"
	"slices"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// Model is a Llama-style model whose weights have been checked. It is read only: any number of sessions may share it.
type Model struct {
	Config Config

	embed, head matrix
	norm        []float32
	layers      []layer
	freq        []float64
	kernel      *simd.Kernels
}

type layer struct {
	q, k, v, o, gate, up, down matrix
	attnNorm, mlpNorm          []float32
	qNorm, kNorm               []float32 // per head, Qwen3; or nil
}

// matrix is [rows, cols] in the element type of its file, with an optional bias over rows.
type matrix struct {
	rows, cols int
	dtype      compress.DType
	data       []byte
	bias       []float32
}

// Load checks that w holds every tensor of the model in its shape.
func Load(c *Config, w Weights) (*Model, error) {
	m := &Model{Config: *c, kernel: simd.Best()}
	var err error
	if m.freq, err = c.Rope.Frequencies(); err != nil {
		return nil, badModel("config.json: %v", err)
	}
	l := loader{w: w, kernel: m.kernel}
	q, kv := c.QHeads*c.HeadDim, c.Heads*c.HeadDim
	m.embed = l.matrix("model.embed_tokens", c.Vocab, c.Hidden)
	m.norm = l.vector("model.norm.weight", c.Hidden)
	m.head = m.embed
	if !c.Tied {
		m.head = l.matrix("lm_head", c.Vocab, c.Hidden)
	}
	for i := range c.Layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		m.layers = append(m.layers, layer{
			attnNorm: l.vector(p+"input_layernorm.weight", c.Hidden),
			mlpNorm:  l.vector(p+"post_attention_layernorm.weight", c.Hidden),
			q:        l.matrix(p+"self_attn.q_proj", q, c.Hidden),
			k:        l.matrix(p+"self_attn.k_proj", kv, c.Hidden),
			v:        l.matrix(p+"self_attn.v_proj", kv, c.Hidden),
			o:        l.matrix(p+"self_attn.o_proj", c.Hidden, q),
			qNorm:    l.optional(p+"self_attn.q_norm.weight", c.HeadDim),
			kNorm:    l.optional(p+"self_attn.k_norm.weight", c.HeadDim),
			gate:     l.matrix(p+"mlp.gate_proj", c.Inner, c.Hidden),
			up:       l.matrix(p+"mlp.up_proj", c.Inner, c.Hidden),
			down:     l.matrix(p+"mlp.down_proj", c.Hidden, c.Inner),
		})
		if l.err != nil {
			return nil, l.err
		}
	}
	return m, l.err
}

// Parameters is the number of weights that a token is multiplied with.
func (m *Model) Parameters() int {
	n := m.head.rows * m.head.cols
	for _, l := range m.layers {
		for _, x := range []matrix{l.q, l.k, l.v, l.o, l.gate, l.up, l.down} {
			n += x.rows * x.cols
		}
	}
	return n
}

// loader keeps the first error, so that a list of tensors reads as a list.
type loader struct {
	w      Weights
	kernel *simd.Kernels
	err    error
}

func (l *loader) tensor(name string, shape ...int) (compress.DType, []byte) {
	got, dtype, data, ok := l.w.Tensor(name)
	t, known := map[string]compress.DType{"F32": compress.F32, "F16": compress.F16, "BF16": compress.BF16}[dtype]
	want := 1
	for _, n := range shape {
		want *= n
	}
	switch {
	case l.err != nil:
	case !ok:
		l.err = badModel("tensor %q is missing", name)
	case !known:
		l.err = badModel("tensor %q has element type %s, supported are F32, F16 and BF16", name, dtype)
	case !slices.Equal(got, shape):
		l.err = badModel("tensor %q has shape %v, config.json wants %v", name, got, shape)
	case len(data) != want*t.Size():
		l.err = badModel("tensor %q has %d bytes, its shape wants %d", name, len(data), want*t.Size())
	}
	return t, data
}

func (l *loader) matrix(name string, rows, cols int) matrix {
	m := matrix{rows: rows, cols: cols}
	m.dtype, m.data = l.tensor(name+".weight", rows, cols)
	m.bias = l.optional(name+".bias", rows)
	return m
}

func (l *loader) vector(name string, n int) []float32 {
	t, data := l.tensor(name, n)
	if l.err != nil {
		return nil
	}
	out := make([]float32, n)
	widen(l.kernel, out, data, t)
	return out
}

func (l *loader) optional(name string, n int) []float32 {
	if _, _, _, ok := l.w.Tensor(name); !ok {
		return nil
	}
	return l.vector(name, n)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
