package eval

import (
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/semproxy/semproxy/compress"
)

// Config is the shape of a Llama-style model, as its config.json gives it.
type Config struct {
	Name                  string // of the model's folder; what is known of a model's heads is found by it
	Architecture          string
	Vocab, Hidden, Inner  int // sizes of the vocabulary, the residual stream and the feed-forward layer
	Layers, QHeads, Heads int // Heads are KV heads
	HeadDim, Context      int // Context is the longest sequence in tokens, 0 when unknown
	Eps                   float64
	Rope                  compress.Rope
	RotaryScale           float64 // factor on cosine and sine, 1 except for YaRN
	Tied                  bool    // the embedding is the output matrix
	BOS                   int     // token that opens a text, -1 for none
	DType                 compress.DType
	slidingWindow         int
}

// architectures that the forward pass computes: they differ in biases and key norms only, which the weights show.
var architectures = []string{"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}

type configFile struct {
	Architectures    []string        `json:"architectures"`
	Vocab            int             `json:"vocab_size"`
	Hidden           int             `json:"hidden_size"`
	Inner            int             `json:"intermediate_size"`
	Layers           int             `json:"num_hidden_layers"`
	QHeads           int             `json:"num_attention_heads"`
	Heads            int             `json:"num_key_value_heads"`
	HeadDim          int             `json:"head_dim"`
	Context          int             `json:"max_position_embeddings"`
	Eps              *float64        `json:"rms_norm_eps"`
	Theta            *float64        `json:"rope_theta"`
	Scaling          json.RawMessage `json:"rope_scaling"`
	RopeParameters   json.RawMessage `json:"rope_parameters"` // the newer spelling of both
	Partial          *float64        `json:"partial_rotary_factor"`
	Act              string          `json:"hidden_act"`
	Tied             bool            `json:"tie_word_embeddings"`
	SlidingWindow    *int            `json:"sliding_window"`
	UseSlidingWindow *bool           `json:"use_sliding_window"`
	TorchDType       string          `json:"torch_dtype"`
	DType            string          `json:"dtype"`
	BOS              json.RawMessage `json:"bos_token_id"`
}

type ropeFile struct {
	Type       string   `json:"rope_type"`
	OldType    string   `json:"type"`
	Theta      *float64 `json:"rope_theta"`
	Factor     float64  `json:"factor"`
	Low        float64  `json:"low_freq_factor"`
	High       float64  `json:"high_freq_factor"`
	Original   int      `json:"original_max_position_embeddings"`
	BetaFast   float64  `json:"beta_fast"`
	BetaSlow   float64  `json:"beta_slow"`
	Attention  float64  `json:"attention_factor"`
	MScale     float64  `json:"mscale"`
	MScaleAll  float64  `json:"mscale_all_dim"`
	Truncate   *bool    `json:"truncate"`
	PartialRot *float64 `json:"partial_rotary_factor"`
}

// limits on a configuration that keep sums of products far from overflow.
const maxSize = 1 << 24

// ParseConfig reads config.json and refuses what the forward pass would compute wrongly.
func ParseConfig(data []byte) (*Config, error) {
	var f configFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, badModel("config.json: %v", err)
	}
	c := &Config{
		Vocab: f.Vocab, Hidden: f.Hidden, Inner: f.Inner, Layers: f.Layers, QHeads: f.QHeads, Heads: f.Heads,
		HeadDim: f.HeadDim, Context: f.Context, Eps: 1e-6, Tied: f.Tied, RotaryScale: 1, BOS: -1,
	}
	if len(f.Architectures) > 0 {
		c.Architecture = f.Architectures[0]
	}
	if !slices.Contains(architectures, c.Architecture) {
		return nil, badModel("config.json: architecture %q is not supported, only %s", c.Architecture, strings.Join(architectures, ", "))
	}
	if f.Act != "" && f.Act != "silu" {
		return nil, badModel("config.json: hidden_act %q is not supported, only silu", f.Act)
	}
	if c.Heads == 0 {
		c.Heads = c.QHeads
	}
	if c.HeadDim == 0 && c.QHeads > 0 {
		c.HeadDim = c.Hidden / c.QHeads
	}
	for name, n := range map[string]int{"vocab_size": c.Vocab, "hidden_size": c.Hidden, "intermediate_size": c.Inner,
		"num_hidden_layers": c.Layers, "num_attention_heads": c.QHeads, "num_key_value_heads": c.Heads, "head_dim": c.HeadDim} {
		if n < 1 || n > maxSize {
			return nil, badModel("config.json: %s must be from 1 to %d, got %d", name, maxSize, n)
		}
	}
	if c.QHeads%c.Heads != 0 {
		return nil, badModel("config.json: %d attention heads do not divide into %d KV heads", c.QHeads, c.Heads)
	}
	if f.Eps != nil {
		c.Eps = *f.Eps
	}
	if f.SlidingWindow != nil && (f.UseSlidingWindow == nil || *f.UseSlidingWindow) {
		c.slidingWindow = *f.SlidingWindow
	}
	var bos int
	if json.Unmarshal(f.BOS, &bos) == nil && len(f.BOS) > 0 && string(f.BOS) != "null" {
		c.BOS = bos
	}
	switch name := strings.TrimPrefix(max(f.TorchDType, f.DType), "torch."); name {
	case "bfloat16":
		c.DType = compress.BF16
	case "float32", "":
		c.DType = compress.F32
	case "float16":
		c.DType = compress.F16
	default:
		return nil, badModel("config.json: dtype %q is not supported, only float16, bfloat16, float32", name)
	}
	return c, c.readRope(&f)
}

func (c *Config) readRope(f *configFile) error {
	r := ropeFile{}
	for _, raw := range []json.RawMessage{f.Scaling, f.RopeParameters} {
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			return badModel("config.json: rope: %v", err)
		}
	}
	kind := r.Type
	if kind == "" {
		kind = r.OldType
	}
	if kind == "" {
		kind = "default"
	}
	c.Rope = compress.Rope{Type: kind, Theta: 10000, Dim: c.HeadDim, Factor: r.Factor, LowFreq: r.Low, HighFreq: r.High,
		OriginalMaxTok: r.Original, BetaFast: r.BetaFast, BetaSlow: r.BetaSlow}
	for _, theta := range []*float64{f.Theta, r.Theta} {
		if theta != nil {
			c.Rope.Theta = *theta
		}
	}
	for _, p := range []*float64{f.Partial, r.PartialRot} {
		if p != nil {
			c.Rope.Dim = int(*p * float64(c.HeadDim))
		}
	}
	if c.Rope.Dim > c.HeadDim {
		return badModel("config.json: %d rotary dimensions exceed the head's %d", c.Rope.Dim, c.HeadDim)
	}
	if kind == "yarn" {
		if r.Truncate != nil && !*r.Truncate {
			return badModel("config.json: yarn without truncation is not supported")
		}
		if c.Rope.OriginalMaxTok == 0 {
			c.Rope.OriginalMaxTok = c.Context
		}
		c.RotaryScale = yarnScale(r)
	}
	if _, err := c.Rope.Frequencies(); err != nil {
		return badModel("config.json: %v", err)
	}
	return nil
}

// yarnScale is the factor by which YaRN scales queries and keys alike (Peng 2023, equation 22).
func yarnScale(r ropeFile) float64 {
	at := func(m float64) float64 {
		if r.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(r.Factor) + 1
	}
	switch {
	case r.Attention > 0:
		return r.Attention
	case r.MScale > 0 && r.MScaleAll > 0:
		return at(r.MScale) / at(r.MScaleAll)
	}
	return at(1)
}

// fits refuses a sequence that would be computed wrongly. A context that is a little too long is not: the rotation goes on.
func (c *Config) fits(tokens int) error {
	if c.slidingWindow > 0 && tokens > c.slidingWindow {
		return badData("a sequence of %d tokens exceeds the model's sliding window of %d, which is not computed", tokens, c.slidingWindow)
	}
	return nil
}
