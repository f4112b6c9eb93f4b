package dialect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// private are the members that neither clients nor engines may send through, in spellings of JSON that mean the same.
var private = []string{"kv_transfer_params", "ec_transfer_params", "cache_salt", `kv_\u0074ransfer_params`, `\u0065c_transfer_params`, `cache\u005fsalt`}

// generator writes random JSON.
type generator struct{ *rand.Rand }

func (g generator) space() string {
	return strings.Repeat([]string{"", " ", "\n\t", "  "}[g.IntN(4)], 1+g.IntN(2))
}

func (g generator) value(depth int) string {
	switch n := g.IntN(9); {
	case n < 2 && depth > 0:
		return g.object(depth - 1)
	case n < 3 && depth > 0:
		var items []string
		for range g.IntN(4) {
			items = append(items, g.space()+g.value(depth-1)+g.space())
		}
		return "[" + strings.Join(items, ",") + g.space() + "]"
	case n < 4:
		return []string{"0", "-0.5e+10", "12345678901234567890", "1E2", "-7"}[g.IntN(5)]
	case n < 5:
		return []string{"true", "false", "null"}[g.IntN(3)]
	}
	return `"` + g.text() + `"`
}

func (g generator) text() string {
	return strings.Repeat([]string{"a", `\"`, `\\`, `\u4e2d`, "é", "{", "],", `"kv_transfer_params\":`[1:], ": "}[g.IntN(9)], g.IntN(5))
}

// object has members of any name, private ones among them, in any depth.
func (g generator) object(depth int) string {
	var members []string
	for i := range g.IntN(6) {
		name := fmt.Sprintf("m%d%s", i, g.text())
		switch g.IntN(4) {
		case 0:
			name = private[g.IntN(len(private))]
		case 1:
			name = []string{"vllm_xargs", "extra_args", "sampling_params", "response", "message", "choices", "error", "delta", "x"}[g.IntN(9)] + fmt.Sprint(i)
		}
		members = append(members, g.space()+`"`+name+`"`+g.space()+":"+g.space()+g.value(depth)+g.space())
	}
	return "{" + strings.Join(members, ",") + g.space() + "}"
}

// strip is the definition: what is left of a value without private members.
func strip(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if dialect.Private(name) {
				delete(v, name)
				continue
			}
			v[name] = strip(inner)
		}
	case []any:
		for i := range v {
			v[i] = strip(v[i])
		}
	}
	return v
}

func parse(t *testing.T, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%.300q: %v", text, err)
	}
	return v
}

// cuts gives a text in random pieces.
func (g generator) cuts(text []byte, give func(p []byte)) {
	for len(text) > 0 {
		n := 1 + g.IntN(min(len(text), 1+g.IntN(40)))
		give(text[:n])
		text = text[n:]
	}
}

func TestPrivateMembersAreRemovedInEveryDepthHoweverTheTextIsCut(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 2))}
	removed := 0
	for range 4000 {
		text := []byte(g.space() + g.object(6) + g.space())
		want := strip(parse(t, text))

		q := dialect.NewReader(chat, -1)
		g.cuts(text, func(p []byte) {
			if _, err := q.Write(bytes.Clone(p)); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		})
		r, err := q.Request()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		body, _, err := r.Rewrite(dialect.Params{})
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, body.Bytes()); !reflect.DeepEqual(got, want) {
			t.Fatalf("a request: got %s of %s", body.Bytes(), text)
		}

		a := &dialect.Answer{}
		shown, changed := a.Whole(bytes.Clone(text))
		if got := parse(t, shown); !reflect.DeepEqual(got, want) {
			t.Fatalf("an answer: got %s of %s", shown, text)
		}
		if changed {
			removed++
		} else if !bytes.Equal(shown, text) {
			t.Fatalf("an answer that holds nothing private: got %s of %s", shown, text)
		}
		if event, _ := a.Event(bytes.Clone(text)); !bytes.Equal(event, shown) {
			t.Fatalf("an event after the first: got %s of %s", event, text)
		}
		long := &dialect.Answer{}
		long.Begin()
		var passed []byte
		g.cuts(text, func(p []byte) { passed = append(passed, long.Pass(p)...) })
		if !bytes.Equal(passed, shown) {
			t.Fatalf("in pieces: got %s, want %s", passed, shown)
		}
	}
	if removed < 1000 {
		t.Errorf("only %d of the texts held something private", removed)
	}
}

// What a client means for the model, or a model for the client, is not touched though it looks like what is private.
func TestSchemasAndArgumentsAreTheUsersOwn(t *testing.T) {
	text := `{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"cache_salt":{"type":"string"}}}}}],"response_format":{"json_schema":{"schema":{"kv_transfer_params":1}}},"metadata":{"cache_salt":"a"}}`
	r, err := dialect.Inspect(chat, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if body, _, err := r.Rewrite(dialect.Params{}); err != nil || string(body.Bytes()) != text {
		t.Errorf("got %s, %v, want it unchanged", body.Bytes(), err)
	}
	text = `{"content":[{"type":"tool_use","input":{"cache_salt":"a"}}]}`
	if shown, changed := (&dialect.Answer{}).Whole([]byte(text)); changed || string(shown) != text {
		t.Errorf("got %s, want it unchanged", shown)
	}
}

// Every place in which an engine puts its parameters, in answers and events of every size about the bounds.
func TestTheEnginesParametersReachNoClientInAnySizeOfAnswer(t *testing.T) {
	const kv = `"kv_transfer_params":{"remote_host":"secret-engine","ids":[1,2]},"ec_transfer_params":{"peer_host":"secret-engine"}`
	const counted = `"usage":{"prompt_tokens":31,"completion_tokens":17}`
	for _, size := range []int{0, 1, dialect.MaxEvent - 300, dialect.MaxEvent - 1, dialect.MaxEvent, dialect.MaxEvent + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20} {
		pad := `"pad":"` + strings.Repeat("p", size) + `"`
		for _, text := range []string{
			`{` + kv + `,"choices":[{"index":0}],` + pad + `,` + counted + `}`,
			`{"choices":[{"index":0}],` + pad + `,` + counted + `,` + kv + `}`,
			`{"type":"response.completed","response":{` + pad + `,` + kv + `,` + counted + `}}`,
			`{"type":"message_start","message":{` + counted + `,` + kv + `,` + pad + `}}`,
			`{"choices":[{"delta":{},` + kv + `,` + pad + `}],` + counted + `}`,
			`{"choices":[{"delta":{` + kv + `}}],` + pad + `,` + counted + `}`,
			`{` + counted + `,"error":{"message":"m",` + kv + `},` + pad + `}`,
		} {
			a := &dialect.Answer{}
			shown, _ := a.Whole([]byte(text))
			check := func(form string, shown []byte, u dialect.Usage) {
				t.Helper()
				if bytes.Contains(shown, []byte("secret-engine")) || bytes.Count(shown, []byte("p")) < size {
					t.Errorf("%s of %d bytes: %.200q passes as %.200q", form, size, text, shown)
				}
				if u.Prompt != 31 || u.Output != 17 || !bytes.Contains(u.KV, []byte("secret-engine")) {
					t.Errorf("%s of %d bytes: %.200q: got %+v, want 31, 17 and the parameters", form, size, text, u)
				}
			}
			check("an answer", shown, a.Usage())
			for _, end := range []string{"\n\n", "\r\n\r\n", "\r\r", "\n", ""} {
				a := &dialect.Answer{}
				src := &stepReader{bytes.NewReader([]byte("event: x\ndata: " + text + end)), 40_000}
				got, err := io.ReadAll(dialect.NewEvents(io.NopCloser(src), a))
				if err != nil {
					t.Fatal(err)
				}
				check(fmt.Sprintf("an event that ends with %q", end), got, a.Usage())
			}
		}
	}
}

// A stream whose usage only the proxy asked for holds nothing of it, whatever the engine makes of the question.
func TestNothingOfTheUsageIsShownThatOnlyTheProxyAskedFor(t *testing.T) {
	const usage = `"usage":{"prompt_tokens":3,"completion_tokens":4}`
	for _, choices := range []string{`,"choices":[]`, `,"choices":null`, ``, `,"choices":[ ]`} {
		for _, rest := range []string{`,` + usage, ``, `,"cost":"0"`, `,` + usage + `,"kv_transfer_params":{}`, `,"usage":null`} {
			for _, end := range []string{"\n\n", "\r\n\r\n", "\r\r"} {
				for _, step := range []int{1, 7, 1000} {
					own := "data: {\"id\":\"1\"" + choices + rest + "}" + end
					said := "data: {\"id\":\"2\",\"choices\":[{\"delta\":{\"content\":\"c\"}}]," + usage + "}" + end
					failed := `data: {"error":{"message":"m"}}` + end
					a := &dialect.Answer{Hide: true}
					got, err := io.ReadAll(dialect.NewEvents(io.NopCloser(&stepReader{bytes.NewReader([]byte(own + said + failed + own + "data: [DONE]" + end)), step}), a))
					want := "data: {\"id\":\"2\",\"choices\":[{\"delta\":{\"content\":\"c\"}}]}" + end + failed + "data: [DONE]" + end
					if err != nil || string(got) != want || a.Usage().Prompt != 3 || a.Usage().Output != 4 {
						t.Errorf("%q in steps of %d: got %q, %v, %+v, want %q", own, step, got, err, a.Usage(), want)
					}
				}
			}
		}
	}
}

// What a tenant's tokens are told from is text, however many pictures, sounds and files lie beside it.
func TestOnlyTextIsMeasuredAsText(t *testing.T) {
	blob := strings.Repeat("QUJD", 100_000)
	url := `data:image/png;base64,` + blob
	for name, c := range map[string]struct {
		part string
		kind int
	}{
		"image_url":             {`{"type":"image_url","image_url":{"url":"` + url + `","detail":"low"}}`, dialect.Image},
		"image_url as a text":   {`{"type":"image_url","image_url":"` + url + `"}`, dialect.Image},
		"input_image":           {`{"type":"input_image","image_url":"` + url + `"}`, dialect.Image},
		"Anthropic's image":     {`{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + blob + `"}}`, dialect.Image},
		"the same, data first":  {`{"source":{"data":"` + blob + `","type":"base64"},"type":"image"}`, dialect.Image},
		"input_audio":           {`{"type":"input_audio","input_audio":{"data":"` + blob + `","format":"wav"}}`, dialect.Audio},
		"audio_url":             {`{"type":"audio_url","audio_url":{"url":"data:audio/wav;base64,` + blob + `"}}`, dialect.Audio},
		"video_url":             {`{"type":"video_url","video_url":{"url":"data:video/mp4;base64,` + blob + `"}}`, dialect.Video},
		"file":                  {`{"type":"file","file":{"file_data":"data:application/pdf;base64,` + blob + `","filename":"a.pdf"}}`, dialect.File},
		"image_embeds":          {`{"type":"image_embeds","image_embeds":"` + blob + `"}`, dialect.Image},
		"a picture made before": {`{"type":"image_generation_call","id":"i","result":"` + blob + `"}`, dialect.Image},
		"a tool's picture":      {`{"type":"tool_result","content":[{"type":"image","source":{"type":"base64","data":"` + blob + `"}}]}`, dialect.Image},
	} {
		for form, body := range map[string]string{
			"chat":      `{"messages":[{"role":"user","content":[{"type":"text","text":"what is this"},` + c.part + `]}]}`,
			"responses": `{"input":[{"role":"user","content":"x"},{"role":"assistant","content":[]},{"role":"user","content":[{"type":"input_text","text":"what is this"},` + c.part + `]}]}`,
			"batch":     `{"messages":[[{"role":"user","content":[` + c.part + `]}],[{"role":"user","content":"x"}]]}`,
		} {
			r, err := dialect.Inspect(chat, []byte(body))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if wanted := map[string]int{"batch": 2}[form]; r.Answers != max(1, wanted) {
				t.Errorf("%s in %s: got %d answers", name, form, r.Answers)
			}
			want := [dialect.Kinds]int{}
			want[c.kind] = 1
			if r.Prompt.Bytes > 120 || r.Prompt.Media != want {
				t.Errorf("%s in %s: got %+v, want a few bytes and one of kind %d", name, form, r.Prompt, c.kind)
			}
		}
	}
	// A picture in the middle of TGI's text; a text that looks like a file is a text where the model reads it.
	tgi := dialect.Route{Pattern: "/generate", Dialect: dialect.TGI, Kind: dialect.Generate}
	for _, step := range []int{1, 5, 1 << 20} {
		q := dialect.NewReader(tgi, -1)
		if _, err := io.Copy(q, &stepReader{bytes.NewReader([]byte(`{"inputs":"![](` + url + `) what ![](` + url + `) is this"}`)), step}); err != nil {
			t.Fatal(err)
		}
		if r, err := q.Request(); err != nil || r.Prompt.Bytes > 60 || r.Prompt.Media[dialect.Image] != 2 {
			t.Errorf("TGI in steps of %d: got %+v, %v, want two pictures and few bytes", step, r.Prompt, err)
		}
	}
	r, err := dialect.Inspect(chat, []byte(`{"messages":[{"role":"user","content":"`+blob+`"}]}`))
	if err != nil || r.Prompt.Bytes < len(blob) {
		t.Errorf("a text: got %+v, %v, want all of it", r.Prompt, err)
	}
}

// Whatever something is decided by is there once, on each level on which it is looked for.
func TestWhatDecidesIsThereOnce(t *testing.T) {
	tgi := dialect.Route{Pattern: "/generate", Dialect: dialect.TGI, Kind: dialect.Generate}
	twice := func(name, value string) string {
		return `"` + name + `":` + value + `,"x":1,"` + name[:1] + `":2,"\u00` + fmt.Sprintf("%02x", name[0]) + name[1:] + `":` + value
	}
	for name, value := range map[string]string{
		"model": `"m"`, "stream": "true", "stream_options": "{}", "max_tokens": "5", "max_completion_tokens": "5", "max_output_tokens": "5", "max_new_tokens": "5",
		"n": "2", "best_of": "2", "messages": "[]", "prompt": `"a"`, "input": `"a"`, "inputs": `"a"`, "system": `"a"`, "instructions": `"a"`, "tools": "[]",
		"documents": "[]", "query": `"a"`, "parameters": "{}", "vllm_xargs": "{}", "temperature": "0", "seed": "1",
	} {
		for body, route := range map[string]dialect.Route{`{` + twice(name, value) + `}`: chat, `{"parameters":{` + twice(name, value) + `}}`: tgi} {
			if strings.HasPrefix(body, `{"parameters"`) && !slices.Contains([]string{"max_tokens", "max_new_tokens", "best_of", "n", "seed", "temperature"}, name) {
				continue
			}
			if _, err := dialect.Inspect(route, []byte(body)); err == nil || !strings.Contains(err.Error(), "request.duplicate_member") {
				t.Errorf("%s: got %v, want request.duplicate_member", body, err)
			}
		}
	}
	if _, err := dialect.Inspect(chat, []byte(`{"stream_options":{`+twice("include_usage", "true")+`}}`)); err == nil {
		t.Error("include_usage twice: got nil, want an error")
	}
	r, err := dialect.Inspect(chat, []byte(`{"max_tokens":5,"max_completion_tokens":190000,"n":3,"best_of":2,"prompt":["a","b"]}`))
	if err != nil || r.MaxTokens != 190000 || r.Answers != 6 {
		t.Errorf("got %+v, %v, want the larger limit, for each of six answers", r, err)
	}
}

// The memory of a body is little more than its bytes, whatever its shape.
func TestABodyNeedsLittleMoreMemoryThanItsBytes(t *testing.T) {
	const size = 4 << 20
	for name, unit := range map[string]string{
		"short members": `,"":0`, "long names": `,"` + strings.Repeat("n", 900) + `":0`, "objects": `,"a":{"b":{}}`, "private members": `,"cache_salt":"x"`, "white space": strings.Repeat(" ", 1000) + `,"a":1`,
	} {
		text := []byte(`{"model":"m"` + strings.Repeat(unit, size/len(unit)) + `}`)
		for step, size := range map[int]int64{1 << 15: int64(len(text)), 1000: -1} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q := dialect.NewReader(chat, size)
			for rest := text; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				if _, err := q.Write(rest[:min(step, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			allocated := int64(after.TotalAlloc - before.TotalAlloc)
			if got := float64(allocated) / float64(len(text)); got > 1.3 {
				t.Errorf("%s in steps of %d: %.2f bytes are allocated for each, want at most 1.3", name, step, got)
			}
			if q.Held() < allocated*9/10-1<<16 {
				t.Errorf("%s in steps of %d: %d bytes are said to be held, %d were allocated", name, step, q.Held(), allocated)
			}
		}
	}
}
