package gate_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/semproxy/semproxy/proxy/gate"
)

const llama = "llama-3-8b"

// taught knows a model whose step takes 10 ms and 2 us per token of context, whose answers have output tokens, and whose
// pages have 1000 bytes a token and take seconds per byte.
func taught(opt gate.Options, output int, perByte float64) *gate.Gate {
	g := gate.New(opt)
	for i := range 40 {
		prompt := 1000 * (1 + i%8)
		step := 0.010 + 2e-6*(float64(prompt)+float64(output)/2)
		g.Reply(llama, gate.Reply{Tenant: "acme", Prompt: gate.Prompt{Bytes: 5 * prompt}, PromptTokens: prompt, OutputTokens: output, SecondsPerStep: step})
		g.Page(llama, prompt, int64(1000*prompt), perByte*float64(1000*prompt))
	}
	return g
}

func TestTheVerdictFollowsFromTheNumbers(t *testing.T) {
	// 4000 tokens at ratio 0.25 save 200 x 2 us x 3000 = 1.2 s; 4 MB cost 4 s per us/byte.
	for _, c := range []struct {
		name    string
		perByte float64
		request gate.Request
		want    gate.Reason
		cost    float64
		saved   float64
	}{
		{"cheap pages pay", 1e-7, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}, gate.Pays, 400, 1200},
		{"within the margin it does not", 0.28e-6, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}, gate.Loses, 1120, 1200},
		{"dear pages do not", 1e-6, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: 0.2}, gate.Loses, 4000, 1200},
		{"a short answer does not", 1e-7, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, MaxOutput: 10, KVUsage: -1}, gate.Loses, 400, 60},
		{"a high ratio does not", 1e-7, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.9, KVUsage: -1}, gate.Loses, 400, 160},
		{"memory pressure wins", 1e-6, gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: 0.9}, gate.Pressure, 0, 0},
		{"short prompts are left", 1e-7, gate.Request{Model: llama, Tokens: 511, Ratio: 0.25, KVUsage: 0.9}, gate.Short, 0, 0},
		{"an unknown model is learnt", 1e-7, gate.Request{Model: "other", Tokens: 4000, Ratio: 0.25, KVUsage: -1}, gate.Learning, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := taught(gate.Options{}, 200, c.perByte).Decide(c.request)
			if got.Reason != c.want || !near(got.CostMS, c.cost) || !near(got.SavedMS, c.saved) {
				t.Errorf("got %s, %g ms against %g ms saved, want %s, %g, %g", got.Reason, got.CostMS, got.SavedMS, c.want, c.cost, c.saved)
			}
			compress := c.want == gate.Pays || c.want == gate.Pressure || c.want == gate.Learning
			if got.Compress != compress || got.Why == "" {
				t.Errorf("got compress %v, why %q, want %v and a sentence", got.Compress, got.Why, compress)
			}
		})
	}
}

func near(got, want float64) bool { return math.Abs(got-want) <= 0.01*max(1, want) }

func TestOffLeavesItToThePolicy(t *testing.T) {
	got := gate.New(gate.Options{Off: true}).Decide(gate.Request{Tokens: 1})
	if !got.Compress || got.Reason != gate.Off {
		t.Errorf("got %+v, want compress, %s", got, gate.Off)
	}
}

func TestOneInSoManyIsAProbe(t *testing.T) {
	g := taught(gate.Options{ProbeEvery: 4}, 200, 1e-6)
	got := map[gate.Reason]int{}
	for range 12 {
		got[g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}).Reason]++
	}
	if got[gate.Probe] != 3 || got[gate.Loses] != 9 {
		t.Errorf("got %v, want 3 probes and 9 that do not pay", got)
	}
}

func TestWhatPaysIsLeftExactOnceInAWhile(t *testing.T) {
	g := taught(gate.Options{ProbeEvery: 4}, 200, 1e-7)
	got := map[gate.Reason]int{}
	for range 12 {
		got[g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}).Reason]++
	}
	if got[gate.Baseline] != 3 || got[gate.Pays] != 9 {
		t.Errorf("got %v, want 3 baselines and 9 that pay", got)
	}
}

// An adapter that compresses before the answer begins would otherwise never show the gate a full context.
func TestWhileLearningSomeAreLeftExact(t *testing.T) {
	g := gate.New(gate.Options{})
	got := map[gate.Reason]int{}
	for range 8 {
		got[g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}).Reason]++
		g.Reply(llama, gate.Reply{PromptTokens: 4000, OutputTokens: 100, SecondsPerStep: 0.02, Compressed: true})
	}
	if got[gate.Baseline] != 1 || got[gate.Learning] != 7 {
		t.Errorf("got %v, want 1 baseline and 7 learning", got)
	}
}

func TestLengthsThatAreAllAlikePredictNothing(t *testing.T) {
	g := gate.New(gate.Options{})
	for range 100 {
		g.Reply(llama, gate.Reply{PromptTokens: 2000, OutputTokens: 100, SecondsPerStep: 0.02})
		g.Page(llama, 2000, 2_000_000, 0.1)
	}
	if got := g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}); got.Reason != gate.Learning {
		t.Errorf("got %s, want %s", got.Reason, gate.Learning)
	}
}

func TestRepliesOfCompressedRequestsDoNotTeachTheFullLength(t *testing.T) {
	g := gate.New(gate.Options{})
	for i := range 100 {
		g.Reply(llama, gate.Reply{PromptTokens: 1000 * (1 + i%8), OutputTokens: 100, SecondsPerStep: 0.02, Compressed: true})
		g.Page(llama, 2000, 2_000_000, 0.1)
	}
	if got := g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}); got.Reason != gate.Learning {
		t.Errorf("got %s, want %s", got.Reason, gate.Learning)
	}
}

func TestAChangeIsLearnt(t *testing.T) {
	g := taught(gate.Options{}, 200, 1e-7)
	for range 200 {
		g.Page(llama, 4000, 4_000_000, 4) // the link became ten times slower
	}
	if got := g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1}); got.Reason != gate.Loses {
		t.Errorf("got %s (%s), want %s", got.Reason, got.Why, gate.Loses)
	}
}

func TestPromptsAreEstimatedFromWhatTheyAreMadeOf(t *testing.T) {
	g := gate.New(gate.Options{})
	text := gate.Prompt{Bytes: 4000}
	picture := gate.Prompt{Bytes: 40, Media: [4]int{1}}
	if got := g.Estimate("acme", llama, text); got != 1000 {
		t.Errorf("before anything is known: got %d, want 1000", got)
	}
	if got := g.Estimate("acme", llama, picture); got < 100 || got > 4000 {
		t.Errorf("a picture before anything is known: got %d, want some thousand at most", got)
	}
	if got := g.Estimate("acme", llama, gate.Prompt{Tokens: 7}); got != 7 {
		t.Errorf("a prompt of tokens: got %d, want 7", got)
	}
	g = taught(gate.Options{}, 200, 1e-7) // five bytes a token
	if got := g.Estimate("acme", llama, text); got < 795 || got > 810 {
		t.Errorf("after replies: got %d, want about 800", got)
	}
	for range 20 {
		g.Reply(llama, gate.Reply{Tenant: "acme", Prompt: picture, PromptTokens: 308})
	}
	if got := g.Estimate("acme", llama, picture); got < 305 || got > 312 {
		t.Errorf("a picture after replies: got %d, want about 308", got)
	}
	if got := g.Estimate("acme", llama, text); got < 795 || got > 810 {
		t.Errorf("a text after pictures: got %d, want about 800", got)
	}
}

// Whatever a tenant sends, what others' prompts are taken for stays the same, and its own comes back.
func TestOddRequestsChangeNoOthersEstimate(t *testing.T) {
	g := taught(gate.Options{}, 200, 1e-7)
	text := gate.Prompt{Bytes: 40_000}
	before := g.Estimate("acme", llama, text)
	for _, odd := range []gate.Reply{
		{Prompt: gate.Prompt{Bytes: 1 << 24}, PromptTokens: 1}, {Prompt: gate.Prompt{Bytes: 1}, PromptTokens: 1 << 30},
		{Prompt: gate.Prompt{Media: [4]int{1}}, PromptTokens: 1 << 30}, {Prompt: gate.Prompt{Bytes: 1 << 20, Media: [4]int{0, 1, 1}}, PromptTokens: 5},
	} {
		odd.Tenant = "globex"
		for range 100 {
			g.Reply(llama, odd)
		}
		if got := g.Estimate("acme", llama, text); got != before {
			t.Errorf("after %+v of another: got %d, want %d", odd.Prompt, got, before)
		}
	}
	odd := gate.Reply{Tenant: "acme", Prompt: gate.Prompt{Bytes: 1 << 24}, PromptTokens: 1}
	g.Reply(llama, odd)
	if got := g.Estimate("acme", llama, text); got < before/2 {
		t.Errorf("after one odd request of its own: got %d, want at least half of %d", got, before)
	}
}

func TestTheModelsAndTenantsAreBounded(t *testing.T) {
	g := taught(gate.Options{ModelsLimit: 4}, 200, 1e-7)
	for i := range 10_000 {
		g.Reply(fmt.Sprint("m", i%7), gate.Reply{Tenant: fmt.Sprint("t", i), Prompt: gate.Prompt{Bytes: 100}, PromptTokens: 200})
	}
	if got := g.Estimate("t9999", "m3", gate.Prompt{Bytes: 100_000}); got < 40_000 {
		t.Errorf("the last tenant: got %d, want what was learnt", got)
	}
	if got := g.Estimate("t1", "m1", gate.Prompt{Bytes: 100}); got != 25 {
		t.Errorf("a tenant of long ago: got %d, want 25: it is still known", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	g := taught(gate.Options{}, 200, 1e-7)
	b.ReportAllocs()
	for b.Loop() {
		_ = g.Decide(gate.Request{Model: llama, Tokens: 4000, Ratio: 0.25, KVUsage: -1})
	}
}
