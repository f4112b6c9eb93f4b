package eval_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval"
	"github.com/semproxy/semproxy/eval/bpe"
)

// The small model recalls nearly all of its facts at half of the tokens and hardly any at a sixteenth in equal shapes: its own curve
// says so, whatever its lookup errors are.
func TestTheLossCurveIsTheModels(t *testing.T) {
	m := loadModel(t, "../configs/eval")
	cases, err := eval.ParseRecall(readFile(t, "../configs/eval/recall.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	cases = cases[:8]
	said := 0
	losses, err := eval.Losses(context.Background(), m, cases, &eval.LossPlan{Progress: func(int, int, int) { said++ }})
	if err != nil {
		t.Fatal(err)
	}
	if said != len(cases) {
		t.Errorf("progress was told %d times of %d cases", said, len(cases))
	}
	asked := 0
	for i := range cases {
		asked += len(cases[i].Answers)
	}
	curve, err := eval.LossCurve(losses, asked)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(curve); i++ {
		if curve[i][0] <= curve[i-1][0] || curve[i][1] <= curve[i-1][1] {
			t.Errorf("the curve falls or stays at %v: %v", curve[i], curve)
		}
	}
	var half, sixteenth eval.Loss
	for _, l := range losses {
		switch {
		case l.Ratio == 0.5:
			half.Asked, half.Lost = half.Asked+l.Asked, half.Lost+l.Lost
		case l.Ratio < 0.1 && l.Lookup > 0.9:
			sixteenth.Asked, sixteenth.Lost = sixteenth.Asked+l.Asked, sixteenth.Lost+l.Lost
		}
	}
	if half.Asked < 80 || half.Lost*10 > half.Asked || sixteenth.Lost*4 < sixteenth.Asked {
		t.Errorf("lost %d of %d at a half and %d of %d at a sixteenth", half.Lost, half.Asked, sixteenth.Lost, sixteenth.Asked)
	}
}

// By hand: parts of one measurement each, of which the third loses less than the second, so both become one.
func TestTheLossCurveJoinsWhatFalls(t *testing.T) {
	var losses []eval.Loss
	for i, lost := range []int{0, 30, 10, 40, 50, 60, 70, 80, 90, 99} {
		losses = append(losses, eval.Loss{Lookup: 0.05 + 0.1*float64(i), Asked: 99, Lost: lost})
	}
	slices.Reverse(losses) // the order is the lookup error's
	got, err := eval.LossCurve(losses, 99)
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]float64{{0, 0}, {.05, .005}, {.2, 40.5 / 199}, {.35, .405}, {.45, .505}, {.55, .605}, {.65, .705}, {.75, .805}, {.85, .905}, {.95, .995}, {1, 1}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		for j := range 2 {
			if d := got[i][j] - want[i][j]; d > 1e-9 || d < -1e-9 {
				t.Errorf("point %d: got %v, want %v", i, got[i], want[i])
			}
		}
	}
}

func TestALossCurveWantsAnswers(t *testing.T) {
	few := []eval.Loss{{Lookup: 0.1, Asked: 10, Lost: 1}}
	if _, err := eval.LossCurve(few, 10); err == nil || !strings.Contains(err.Error(), "of 10 answers") {
		t.Errorf("got %v, want a refusal of so few answers", err)
	}
	many := make([]eval.Loss, 14)
	for i := range many {
		many[i] = eval.Loss{Lookup: float64(i) / 20, Asked: 50, Lost: i}
	}
	if _, err := eval.LossCurve(many, 1000); err == nil {
		t.Error("a model that gives 50 of 1000 answers has a loss curve")
	}
	if _, err := eval.LossCurve(many, 60); err != nil {
		t.Error(err)
	}
}

// The text stays as it is around its facts, and every answer can be read in it.
func TestFactsArePutIntoTexts(t *testing.T) {
	encoder, err := bpe.New(readFile(t, "../configs/demo/tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	ids := windowIDs(t, 0, 300)
	ends := func(ids []int32) []byte {
		b := make([]byte, len(ids))
		for i := 9; i < len(b); i += 10 {
			b[i] = 1
		}
		return b
	}
	windows := []eval.Case{{Name: "a", Context: ids}, {Name: "b", Context: ids}}
	cases := eval.FactCases(windows, encoder.Encode, ends, 7)
	if len(cases) != 2 || slices.Equal(cases[0].Context, cases[1].Context) {
		t.Fatal("two texts have the same facts in the same places")
	}
	for _, c := range cases {
		if len(c.Answers) != 8 {
			t.Fatalf("got %d questions, want 8", len(c.Answers))
		}
		left := 0 // the text's tokens are all there, in their order
		for _, id := range c.Context {
			if left < len(ids) && id == ids[left] {
				left++
			}
		}
		if left != len(ids) {
			t.Errorf("only %d of the text's %d tokens are left in their order", left, len(ids))
		}
		if len(c.Context) <= len(ids)+8*5 {
			t.Errorf("%d tokens became %d: too few for 8 facts", len(ids), len(c.Context))
		}
		for _, a := range c.Answers {
			if answer := c.Follow[a.From:a.To]; a.From < 1 || len(answer) == 0 || !contains(c.Context, answer) {
				t.Errorf("the answer %v is not in the text", answer)
			}
		}
	}
	again := eval.FactCases(windows, encoder.Encode, ends, 7)
	if !slices.Equal(again[1].Context, cases[1].Context) || !slices.Equal(again[1].Follow, cases[1].Follow) {
		t.Error("the same seed gives other facts")
	}
}

func contains(all, part []int32) bool {
	for i := range all {
		if len(all)-i >= len(part) && slices.Equal(all[i:i+len(part)], part) {
			return true
		}
	}
	return false
}
