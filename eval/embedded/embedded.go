// Package embedded is the small model that is in the program, from configs/eval, and pages that it makes of texts.
package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/eval"
	"github.com/semproxy/semproxy/eval/bpe"
	"github.com/semproxy/semproxy/transport/page"
)

// MaxChars bounds a text that the embedded model is run on; maxTokens its tokens, queries what the page carries of queries.
const (
	MaxChars  = 4000
	maxTokens = 960
	queries   = 16
)

// Page runs the small model of configs/eval, which is embedded, on a text: its cache is the page.
func Page(ctx context.Context, text string) ([]byte, []string, error) {
	if utf8.RuneCountInString(text) > MaxChars {
		return nil, nil, fmt.Errorf("the text has more than %d characters, which the embedded model cannot take", MaxChars)
	}
	m, err := Model()
	if err != nil {
		return nil, nil, err
	}
	tokenizer, err := fs.ReadFile(configs.Demo(), "tokenizer.json")
	if err != nil {
		return nil, nil, err
	}
	encoder, err := bpe.New(tokenizer)
	if err != nil {
		return nil, nil, err
	}
	ids := append(append([]int32(nil), encoder.First()...), encoder.Encode(text)...)
	switch {
	case len(ids) < 64:
		return nil, nil, errors.New("the text is too short: give it 64 tokens or more, about 250 letters")
	case len(ids) > maxTokens:
		ids = ids[:maxTokens]
	}
	vocabulary, err := delimiter.Load(bytes.NewReader(tokenizer))
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return modelPage(m, configs.DemoModel, ids, vocabulary)
}

// Model is the model of configs/eval.
func Model() (*eval.Model, error) {
	raw, err := fs.ReadFile(configs.Eval(), "config.json")
	if err != nil {
		return nil, err
	}
	config, err := eval.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	blob, err := fs.ReadFile(configs.Eval(), "model.safetensors")
	if err != nil {
		return nil, err
	}
	weights := eval.Safetensors{}
	if err := weights.Add("model.safetensors", blob); err != nil {
		return nil, err
	}
	return eval.Load(config, weights)
}

// modelPage prefills a model and gives its cache as a page, with the texts of its tokens.
func modelPage(m *eval.Model, name string, ids []int32, vocabulary *delimiter.Table) (blob []byte, words []string, err error) {
	cache, err := m.NewSession(0).Prefill(ids, eval.Want{Queries: min(queries, len(ids))})
	if err != nil {
		return nil, nil, err
	}
	r := cache.Rope
	p := page.Page{
		Model: name, Sequence: "text", Layout: "hf.llama.LHTD", TokensTotal: len(ids), Pages: 1, DType: pageType(cache),
		Rope: page.Rope{
			Type: r.Type, Theta: r.Theta, RotaryDim: r.Dim, Interleaved: r.Interleaved, Factor: r.Factor, LowFreqFactor: r.LowFreq,
			HighFreqFactor: r.HighFreq, OriginalMaxPosition: r.OriginalMaxTok, BetaFast: r.BetaFast, BetaSlow: r.BetaSlow,
		},
		Layers: cache.Layers, KVHeads: cache.Heads, Tokens: cache.Tokens, HeadDim: cache.Dim, K: cache.K, V: cache.V,
		TokenIDs: page.IntsOf(ids), Positions: page.IntsOf(cache.Positions),
		QDType: page.F32, QHeads: cache.Last.Heads, Window: cache.Last.Window,
	}
	p.Q = make([]byte, 0, 4*len(cache.Last.X))
	for _, x := range cache.Last.X {
		b := math.Float32bits(x)
		p.Q = append(p.Q, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
	}
	p.Boundary = vocabulary.MarkBoundary(nil, len(ids), func(i int) int64 { return int64(ids[i]) })
	for _, id := range ids {
		word, _ := vocabulary.Text(int64(id))
		words = append(words, strings.ToValidUTF8(word, "�"))
	}
	blob, err = p.Append(nil)
	return blob, words, err
}

// pageType is the element type of a cache as pages name it.
func pageType(c *eval.Cache) page.DType {
	for _, t := range []page.DType{page.BF16, page.F16, page.F32} {
		if t.String() == c.DType.String() {
			return t
		}
	}
	return page.F32
}
