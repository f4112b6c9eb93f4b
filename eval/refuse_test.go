package eval_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval"
)

func refused(t *testing.T, err error, code, says string) {
	t.Helper()
	var e *eval.Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("got error %v, want one that says %q", err, says)
	case e.Code() != code || !strings.Contains(err.Error(), says):
		t.Errorf("got %s: %v, want %s and %q", e.Code(), err, code, says)
	}
}

func TestConfigsThatWouldBeComputedWronglyAreRefused(t *testing.T) {
	const good = `{"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
		"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}`
	if _, err := eval.ParseConfig([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ change, to, says string }{
		{`"LlamaForCausalLM"`, `"GPT2LMHeadModel"`, "GPT2LMHeadModel"},
		{`"hidden_size": 8`, `"hidden_size": 0`, "hidden_size"},
		{`"num_key_value_heads": 1`, `"num_key_value_heads": 3`, "divide"},
		{`"head_dim": 4`, `"head_dim": 4, "hidden_act": "gelu"`, "gelu"},
		{`"head_dim": 4`, `"head_dim": 4, "torch_dtype": "int8"`, "int8"},
		{`"head_dim": 4`, `"head_dim": 4, "rope_scaling": {"type": "dynamic", "factor": 2}`, "dynamic"},
		{`"head_dim": 4`, `"head_dim": 4, "rope_scaling": {"type": "linear"}`, "factor"},
		{`"head_dim": 4`, `"head_dim": 4, "partial_rotary_factor": 2`, "rotary"},
		{`"head_dim": 4}`, `"head_dim": 4`, "config.json"},
	} {
		_, err := eval.ParseConfig([]byte(strings.Replace(good, tc.change, tc.to, 1)))
		refused(t, err, "eval.model", tc.says)
	}
}

func blob(header, body string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+body...)
}

func TestSafetensorsThatDoNotHoldWhatTheySayAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		data []byte
		says string
	}{
		{"too short", []byte("1234"), "too few"},
		{"header past the end", binary.LittleEndian.AppendUint64(nil, 1<<40), "header"},
		{"header is not JSON", blob("{", ""), "header"},
		{"unknown type", blob(`{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}`, "x"), "F7"},
		{"negative size", blob(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, "xxxx"), "shape"},
		{"product overflows", blob(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}`, "xxxx"), "shape"},
		{"offsets past the end", blob(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "xxxx"), "hold"},
		{"offsets backwards", blob(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, "xxxx"), "hold"},
		{"size and shape differ", blob(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, "xxxx"), "hold"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused(t, eval.Safetensors{}.Add("m", tc.data), "eval.model", tc.says)
		})
	}
	s := eval.Safetensors{}
	one := blob(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}`, "xxxx")
	if err := s.Add("one", one); err != nil {
		t.Fatal(err)
	}
	refused(t, s.Add("two", one), "eval.model", "two files")
}

func TestModelsWithoutTheirTensorsAreRefused(t *testing.T) {
	c, err := eval.ParseConfig([]byte(`{"architectures": ["LlamaForCausalLM"], "vocab_size": 5, "hidden_size": 8, "intermediate_size": 6,
		"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "sliding_window": 3}`))
	if err != nil {
		t.Fatal(err)
	}
	w := random(c, "F32", false, false)
	m, err := eval.Load(c, w)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession(1)
	_, err = s.Prefill([]int32{0, 5}, eval.Want{})
	refused(t, err, "eval.data", "vocabulary")
	_, err = s.Prefill([]int32{0, -1}, eval.Want{})
	refused(t, err, "eval.data", "vocabulary")
	_, err = s.Prefill([]int32{0, 1, 2, 3}, eval.Want{})
	refused(t, err, "eval.data", "sliding window")
	_, err = s.Prefill(nil, eval.Want{})
	refused(t, err, "eval.data", "too short")

	w.shape["model.layers.0.mlp.up_proj.weight"] = []int{8, 6}
	_, err = eval.Load(c, w)
	refused(t, err, "eval.model", "shape [8 6]")
	delete(w.data, "lm_head.weight")
	_, err = eval.Load(c, w)
	refused(t, err, "eval.model", `"lm_head.weight" is missing`)
	w.dtype = "I8"
	_, err = eval.Load(c, w)
	refused(t, err, "eval.model", "I8")
}

func TestCasesThatAskForNothingAreRefused(t *testing.T) {
	for _, tc := range []struct{ line, says string }{
		{`{"context": [1], "questions": [1, 2, 3, 4, 5], "answers": [{"at": 0}]}`, "an answer at 0"},
		{`{"context": [1], "questions": [1, 2, 3, 4, 5], "answers": [{"at": 2}]}`, "an answer at 2"},
		{`{"context": [], "questions": [1, 2, 3, 4, 5], "answers": [{"at": 1}]}`, "empty"},
		{`{"context": [1], "questions": "x"}`, "line 2"},
	} {
		_, err := eval.ParseRecall([]byte("\n" + tc.line + "\n"))
		refused(t, err, "eval.data", tc.says)
	}
}
