package eval_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/eval"
)

// memory holds weights in F32 or BF16, made up.
type memory struct {
	dtype string
	shape map[string][]int
	data  map[string][]float64
}

func (m *memory) add(r *rand.Rand, scale, offset float64, name string, shape ...int) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	x := make([]float64, n)
	for i := range x {
		v := math.Float32bits(float32(offset + scale*r.NormFloat64()))
		if m.dtype == "BF16" {
			v &^= 0xffff
		}
		x[i] = float64(math.Float32frombits(v))
	}
	m.shape[name], m.data[name] = shape, x
}

func (m *memory) Tensor(name string) (shape []int, dtype string, data []byte, ok bool) {
	x, ok := m.data[name]
	for _, v := range x {
		b := math.Float32bits(float32(v))
		if m.dtype == "BF16" {
			data = binary.LittleEndian.AppendUint16(data, uint16(b>>16))
		} else {
			data = binary.LittleEndian.AppendUint32(data, b)
		}
	}
	return m.shape[name], m.dtype, data, ok
}

// random makes the weights of a model, with the biases of Qwen2 or the key norms of Qwen3 where asked.
func random(c *eval.Config, dtype string, biases, norms bool) *memory {
	m := &memory{dtype: dtype, shape: map[string][]int{}, data: map[string][]float64{}}
	r := rand.New(rand.NewPCG(1, 2))
	q, kv, w := c.QHeads*c.HeadDim, c.Heads*c.HeadDim, 0.3
	m.add(r, 1, 0, "model.embed_tokens.weight", c.Vocab, c.Hidden)
	m.add(r, 0.2, 1, "model.norm.weight", c.Hidden)
	if !c.Tied {
		m.add(r, 1, 0, "lm_head.weight", c.Vocab, c.Hidden)
	}
	for i := range c.Layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		m.add(r, 0.2, 1, p+"input_layernorm.weight", c.Hidden)
		m.add(r, 0.2, 1, p+"post_attention_layernorm.weight", c.Hidden)
		m.add(r, w, 0, p+"self_attn.q_proj.weight", q, c.Hidden)
		m.add(r, w, 0, p+"self_attn.k_proj.weight", kv, c.Hidden)
		m.add(r, w, 0, p+"self_attn.v_proj.weight", kv, c.Hidden)
		m.add(r, w, 0, p+"self_attn.o_proj.weight", c.Hidden, q)
		m.add(r, w, 0, p+"mlp.gate_proj.weight", c.Inner, c.Hidden)
		m.add(r, w, 0, p+"mlp.up_proj.weight", c.Inner, c.Hidden)
		m.add(r, w, 0, p+"mlp.down_proj.weight", c.Hidden, c.Inner)
		if biases {
			m.add(r, w, 0, p+"self_attn.q_proj.bias", q)
			m.add(r, w, 0, p+"self_attn.k_proj.bias", kv)
			m.add(r, w, 0, p+"self_attn.v_proj.bias", kv)
		}
		if norms {
			m.add(r, 0.2, 1, p+"self_attn.q_norm.weight", c.HeadDim)
			m.add(r, 0.2, 1, p+"self_attn.k_norm.weight", c.HeadDim)
		}
	}
	return m
}

// definition is a model in float64, one token and one head at a time.
type definition struct {
	*eval.Config
	m            *memory
	freq         []float64
	keys, values [][][]float64 // [layers, heads], of the tokens so far
}

// oracle computes the logits after every token.
func oracle(t *testing.T, c *eval.Config, m *memory, ids []int32) (out [][]float64) {
	t.Helper()
	freq, err := c.Rope.Frequencies()
	if err != nil {
		t.Fatal(err)
	}
	d := &definition{Config: c, m: m, freq: freq, keys: make([][][]float64, c.Layers*c.Heads), values: make([][][]float64, c.Layers*c.Heads)}
	head := "lm_head"
	if c.Tied {
		head = "model.embed_tokens"
	}
	for pos, id := range ids {
		x := append([]float64(nil), m.data["model.embed_tokens.weight"][int(id)*c.Hidden:][:c.Hidden]...)
		for l := range c.Layers {
			d.layer(l, pos, x)
		}
		out = append(out, d.times(head, d.norm("model.norm.weight", x)))
	}
	return out
}

// layer adds to x, the residual of the token at pos, what a layer makes of it.
func (d *definition) layer(l, pos int, x []float64) {
	p := fmt.Sprintf("model.layers.%d.", l)
	for i, v := range d.times(p+"self_attn.o_proj", d.attend(l, pos, d.norm(p+"input_layernorm.weight", x))) {
		x[i] += v
	}
	h := d.norm(p+"post_attention_layernorm.weight", x)
	gate, up := d.times(p+"mlp.gate_proj", h), d.times(p+"mlp.up_proj", h)
	for i, g := range gate {
		up[i] *= g / (1 + math.Exp(-g))
	}
	for i, v := range d.times(p+"mlp.down_proj", up) {
		x[i] += v
	}
}

// attend is what the token at pos, h after its norm, gets from itself and those before it: [query heads, head dim].
func (d *definition) attend(l, pos int, h []float64) []float64 {
	p, n := fmt.Sprintf("model.layers.%d.", l), d.HeadDim
	q, k, v := d.times(p+"self_attn.q_proj", h), d.times(p+"self_attn.k_proj", h), d.times(p+"self_attn.v_proj", h)
	for i := range d.Heads {
		g := l*d.Heads + i
		d.keys[g] = append(d.keys[g], d.rotated(d.norm(p+"self_attn.k_norm.weight", k[i*n:(i+1)*n]), pos))
		d.values[g] = append(d.values[g], v[i*n:(i+1)*n])
	}
	out := make([]float64, len(q))
	for i := range d.QHeads {
		qi := d.rotated(d.norm(p+"self_attn.q_norm.weight", q[i*n:(i+1)*n]), pos)
		g := l*d.Heads + i/(d.QHeads/d.Heads)
		e, sum := make([]float64, pos+1), 0.0
		for j := range e {
			for a, v := range qi {
				e[j] += v * d.keys[g][j][a] / math.Sqrt(float64(n))
			}
			e[j] = math.Exp(e[j])
			sum += e[j]
		}
		for j := range e {
			for a := range n {
				out[i*n+a] += e[j] / sum * d.values[g][j][a]
			}
		}
	}
	return out
}

// times is a matrix and its bias, if it has one.
func (d *definition) times(name string, x []float64) []float64 {
	w := d.m.data[name+".weight"]
	y := make([]float64, len(w)/len(x))
	for i := range y {
		for j, v := range x {
			y[i] += w[i*len(x)+j] * v
		}
		if b := d.m.data[name+".bias"]; b != nil {
			y[i] += b[i]
		}
	}
	return y
}

// norm is by the root of the mean square. Where the model has none it is x.
func (d *definition) norm(name string, x []float64) []float64 {
	w, sum, y := d.m.data[name], 0.0, make([]float64, len(x))
	if w == nil {
		return x
	}
	for _, v := range x {
		sum += v * v
	}
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+d.Eps) * w[i]
	}
	return y
}

// rotated is x by RoPE.
func (d *definition) rotated(x []float64, pos int) []float64 {
	y, half := append([]float64(nil), x...), len(d.freq)
	for i, w := range d.freq {
		s, c := math.Sincos(float64(pos) * w)
		s, c = s*d.RotaryScale, c*d.RotaryScale
		y[i], y[i+half] = x[i]*c-x[i+half]*s, x[i+half]*c+x[i]*s
	}
	return y
}

// Sizes that are no multiple of anything, and every part that models differ in.
func TestForwardPassAgreesWithTheDefinition(t *testing.T) {
	for _, tc := range []struct{ name, config, dtype string }{
		{"llama, one head, separate output", `{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 6, "rms_norm_eps": 1e-5}`, "F32"},
		{"llama3 scaling", `{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": true,
			"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 32}}`, "BF16"},
		{"yarn scaling", `{"architectures": ["MistralForCausalLM"], "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
			"rope_parameters": {"rope_type": "yarn", "rope_theta": 500, "factor": 4, "original_max_position_embeddings": 64}}`, "F32"},
		{"qwen2, biases", `{"architectures": ["Qwen2ForCausalLM"], "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14, "rope_theta": 1e6,
			"sliding_window": 4, "use_sliding_window": false}`, "F32"},
		{"qwen3, key norms, partial rotation", `{"architectures": ["Qwen3ForCausalLM"], "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
			"partial_rotary_factor": 0.5, "tie_word_embeddings": true}`, "F32"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sizes := `{"vocab_size": 37, "hidden_size": 22, "intermediate_size": 71, "num_hidden_layers": 2, "torch_dtype": "float32", ` + tc.config[1:]
			c, err := eval.ParseConfig([]byte(sizes))
			if err != nil {
				t.Fatal(err)
			}
			w := random(c, tc.dtype, c.Architecture == "Qwen2ForCausalLM", c.Architecture == "Qwen3ForCausalLM")
			m, err := eval.Load(c, w)
			if err != nil {
				t.Fatal(err)
			}
			ids := make([]int32, 150) // more than one block of keys
			for i := range ids {
				ids[i] = int32(i * i % c.Vocab)
			}
			want := oracle(t, c, w, ids)
			const context = 131
			s := m.NewSession(3)
			cache, err := s.Prefill(ids[:context], eval.Want{Queries: 1})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "prefill", s, c, []int{0, 1, 64, context - 1}, 0, want)
			if _, err := s.Follow(ids[context:], context, &cache.Full, 0); err != nil {
				t.Fatal(err)
			}
			same(t, "follow", s, c, []int{0, 7, len(ids) - context - 1}, context, want)
		})
	}
}

func same(t *testing.T, what string, s *eval.Session, c *eval.Config, at []int, start int, want [][]float64) {
	t.Helper()
	logits, stride := s.Logits(at)
	for i, token := range at {
		for j, w := range want[start+token] {
			if got := float64(logits[i*stride+j]); math.Abs(got-w) > 2e-3*(1+math.Abs(w)) {
				t.Fatalf("%s, token %d, logit %d: got %v, want %v", what, token, j, got, w)
			}
		}
		if pad := logits[i*stride+c.Vocab : (i+1)*stride]; len(pad) > 0 && pad[0] != 0 {
			t.Errorf("%s: the padding of a row holds %v, want 0", what, pad[0])
		}
	}
}
