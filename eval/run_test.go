package eval_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval"
	"github.com/semproxy/semproxy/eval/bpe"
)

// shippedCases are a few windows and a few recall cases of the shipped data.
func shippedCases(t *testing.T, windows, recall int) []eval.Case {
	t.Helper()
	encoder, err := bpe.New(readFile(t, "../configs/demo/tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	texts, err := eval.ParseTexts(readFile(t, shipped+"/text.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range texts {
		if texts[i].Source != "kjv" {
			t.Errorf("text %d comes from %q, only kjv may be shipped", i, texts[i].Source)
		}
		texts[i].IDs = encoder.Encode(texts[i].Text)
	}
	cases := eval.Windows(texts, encoder.First(), 864, 96, windows)
	more, err := eval.ParseRecall(readFile(t, shipped+"/recall.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return append(cases, more[:recall]...)
}

func row(t *testing.T, rep *eval.Report, method string, ratio float64) eval.Row {
	t.Helper()
	for _, r := range rep.Rows {
		if r.Method == method && r.Ratio == ratio {
			return r
		}
	}
	t.Fatalf("the report has no row for %s at %v", method, ratio)
	return eval.Row{}
}

func TestSemanticRecallsWhatAWindowForgets(t *testing.T) {
	m, cases := loadModel(t, shipped), shippedCases(t, 2, 4)
	seen := 0
	plan := eval.Plan{Methods: []string{"none", "semantic", "window", "h2o"}, Ratios: []float64{0.25}, Workers: 2,
		Progress: func(done, _ int) { seen = done }}
	rep, err := eval.Run(context.Background(), m, cases, plan)
	if err != nil {
		t.Fatal(err)
	}
	if seen != 6 || rep.Windows != 2 || rep.Predictions != 2*95 || rep.RecallCases != 4 || rep.Answers != 24 {
		t.Errorf("got %d cases, %+v; want 6 cases, 2 windows of 95 predictions, 4 recall cases of 6 answers", seen, rep)
	}
	full, none := row(t, rep, "full", 1), row(t, rep, "none", 0.25)
	if *full.Relative != 1 || *full.Recall < 0.9 || full.Attention != 0 {
		t.Errorf("full cache: got %v, recall %v, error %v; want 1, at least 0.9, 0", *full.Relative, *full.Recall, full.Attention)
	}
	if math.Abs(*none.Relative-1) > 1e-4 || *none.Recall != *full.Recall || none.Attention > 1e-5 || none.Bytes != 1 {
		t.Errorf("none: got %+v, want what the full cache gives", none)
	}
	semantic, window := row(t, rep, "semantic", 0.25), row(t, rep, "window", 0.25)
	if *semantic.Recall < 0.75 || *window.Recall > 0.5 || *semantic.Relative > 1.15 {
		t.Errorf("got semantic recall %v at perplexity %v and window recall %v, want at least 0.75, at most 1.15, at most 0.5",
			*semantic.Recall, *semantic.Relative, *window.Recall)
	}
	if semantic.Millis <= 0 || semantic.Kept > 0.25 || semantic.Bytes > 0.26 {
		t.Errorf("semantic: got %v ms, %v of the tokens, %v of the bytes", semantic.Millis, semantic.Kept, semantic.Bytes)
	}
}

func TestResultsDoNotDependOnWorkersOrCompany(t *testing.T) {
	m, cases := loadModel(t, shipped), shippedCases(t, 1, 2)
	run := func(workers int, methods ...string) eval.Row {
		rep, err := eval.Run(context.Background(), m, cases, eval.Plan{Methods: methods, Ratios: []float64{0.5}, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		r := row(t, rep, "semantic", 0.5)
		r.Millis = 0
		return r
	}
	if a, b := run(1, "semantic"), run(3, "window", "semantic"); !reflect.DeepEqual(a, b) {
		t.Errorf("alone on one worker: got %+v, with company on three: %+v", a, b)
	}
}

func TestRunStopsWhenCancelledOrWrong(t *testing.T) {
	m, cases := loadModel(t, shipped), shippedCases(t, 0, 3)
	ctx, cancel := context.WithCancel(context.Background())
	plan := eval.Plan{Methods: []string{"window"}, Ratios: []float64{0.5}, Progress: func(int, int) { cancel() }}
	if _, err := eval.Run(ctx, m, cases, plan); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	ctx = context.Background()
	_, err := eval.Run(ctx, m, nil, plan)
	refused(t, err, "eval.data", "no cases")
	_, err = eval.Run(ctx, m, cases, eval.Plan{Methods: []string{"window"}, Ratios: []float64{0}})
	refused(t, err, "eval.method", "ratio")
	_, err = eval.Run(ctx, m, cases, eval.Plan{Methods: []string{"magic"}, Ratios: []float64{1}})
	refused(t, err, "eval.method", "magic")
	cases[1].Follow[0] = 1 << 20
	_, err = eval.Run(ctx, m, cases, eval.Plan{Methods: []string{"window"}, Ratios: []float64{1}})
	refused(t, err, "eval.data", "recall 1")
}

func TestWindowsTakeTheFirstOfEveryTextFirst(t *testing.T) {
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(i)
		}
		return out
	}
	texts := []eval.Text{{Source: "a", IDs: ids(14)}, {Source: "b", IDs: ids(9)}, {Source: "c", IDs: ids(10)}}
	cases := eval.Windows(texts, []int32{99}, 8, 3, 3)
	var names []string
	for _, c := range cases {
		names = append(names, c.Name)
		if len(c.Context) != 8 || len(c.Follow) != 3 || c.Context[0] != 99 || c.Follow[0] != c.Context[7]+1 {
			t.Errorf("%s: got %v then %v, want 8 ids from 99 and the 3 that follow", c.Name, c.Context, c.Follow)
		}
	}
	if got, want := strings.Join(names, ", "), "a 0.0, c 2.0, a 0.1"; got != want {
		t.Errorf("got windows %s, want %s", got, want)
	}
	if got := len(eval.Windows(texts, nil, 8, 3, 2)); got != 2 {
		t.Errorf("got %d windows, want the limit of 2", got)
	}
}

func TestReportIsReadableAsTableJSONAndPicture(t *testing.T) {
	x := func(v float64) *float64 { return &v }
	rep := &eval.Report{Windows: 1, Rows: []eval.Row{
		{Method: "full", Ratio: 1, Relative: x(1), Deviation: x(0), Bytes: 1},
		{Method: "a<b", Ratio: 0.5, Relative: x(1.01), Deviation: x(0.002), Bytes: 0.5},
		{Method: "a<b", Ratio: 0.25, Relative: x(1.1), Deviation: x(0.01), Bytes: 0.25},
	}}
	var table, svg bytes.Buffer
	if err := rep.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	if got := table.String(); !strings.Contains(got, "1.1000") || !strings.Contains(got, "perplexity ratio") {
		t.Errorf("got table\n%s", got)
	}
	if err := rep.WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	texts := 0
	for d := xml.NewDecoder(bytes.NewReader(svg.Bytes())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is not XML: %v", err)
		}
		if c, ok := token.(xml.CharData); ok && strings.TrimSpace(string(c)) != "" {
			texts++
		}
	}
	if texts < 8 || strings.Contains(svg.String(), "NaN") || strings.Contains(svg.String(), "recall") {
		t.Errorf("got a picture with %d texts, want labels, no NaN, and no panel for recall, which was not measured:\n%s", texts, svg.String())
	}
	if _, err := json.Marshal(rep); err != nil {
		t.Error(err)
	}
	if err := (&eval.Report{}).WriteSVG(io.Discard); err != nil {
		t.Error(err)
	}
}
