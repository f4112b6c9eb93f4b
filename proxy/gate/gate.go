package gate

import (
	"fmt"
	"sync"
)

// Options adjust a Gate. The zero value of each field is useful.
type Options struct {
	Off         bool    // compress whenever the policy says so
	MinTokens   int     // shorter prompts are not compressed; 0: 512
	Margin      float64 // what must be saved, as a multiple of the cost; 0: 1.2
	KVPressure  float64 // share of the engine's KV memory from which on compression pays in any case; 0: 0.85
	ProbeEvery  int     // one of so many requests is treated the other way, to go on learning; 0: 32
	ModelsLimit int     // models told apart; the one not used for longest is forgotten; 0: 64
}

// Request is what a verdict depends on.
type Request struct {
	Model     string
	Tokens    int     // of the prompt
	MaxOutput int     // most tokens of the answer; 0: not said
	Ratio     float64 // tokens kept / tokens given, as the policy asks
	KVUsage   float64 // share of the engine's KV memory in use, 0 to 1; negative: not known
}

// Verdict is the answer, with the numbers that led to it.
type Verdict struct {
	Compress bool    `json:"compress"`
	Reason   Reason  `json:"reason"`
	Why      string  `json:"why"`              // a sentence for a person
	CostMS   float64 `json:"costMs,omitempty"` // predicted, of moving and merging
	SavedMS  float64 `json:"savedMs,omitempty"`
	Output   float64 `json:"expectedOutput,omitempty"` // tokens of the answer
	KVUsage  float64 `json:"kvUsage,omitempty"`
}

// Reason is the stable name of why.
type Reason string

// Reasons.
const (
	Exact    Reason = "policy_exact"      // the policy compresses nothing here
	Asked    Reason = "client_asked"      // the client wants the exact cache
	Off      Reason = "gate_off"          // the gate is switched off
	Short    Reason = "too_short"         // below the least number of tokens
	Pressure Reason = "kv_pressure"       // the engine's KV memory is nearly full
	Learning Reason = "learning"          // not enough was measured to predict
	Pays     Reason = "pays"              // saves more than it costs
	Loses    Reason = "does_not_pay"      // costs more than it saves
	Probe    Reason = "probe"             // does not pay by what is known; done to learn whether that still holds
	Held     Reason = "canary"            // the canary has not passed on this engine
	Back     Reason = "verify"            // sampled answers showed that the profile changes too many of them
	Unknown  Reason = "protected_unknown" // where the messages lie that the policy protects is not known
	Away     Reason = "page_plane"        // what compresses pages does not run
	Baseline Reason = "baseline"          // left exact to learn what a step over the whole context costs
)

// Gate learns and decides. It is safe for concurrent use.
type Gate struct {
	opt Options

	mu     sync.Mutex
	models map[string]*model
	rates  map[ratesKey]*rates
	used   uint64
}

// New makes a gate that knows nothing yet.
func New(opt Options) *Gate {
	set := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&opt.MinTokens, 512)
	set(&opt.ProbeEvery, 32)
	set(&opt.ModelsLimit, 64)
	if !(opt.Margin > 0) {
		opt.Margin = 1.2
	}
	if !(opt.KVPressure > 0) {
		opt.KVPressure = 0.85
	}
	return &Gate{opt: opt, models: map[string]*model{}, rates: map[ratesKey]*rates{}}
}

// model finds or makes an entry; g.mu is held.
func (g *Gate) model(name string) *model {
	g.used++
	m := g.models[name]
	if m == nil {
		if len(g.models) >= g.opt.ModelsLimit {
			g.evict()
		}
		m = &model{}
		g.models[name] = m
	}
	m.used = g.used
	return m
}

func (g *Gate) evict() {
	oldest, least := "", g.used+1
	for name, m := range g.models {
		if m.used < least {
			oldest, least = name, m.used
		}
	}
	delete(g.models, oldest)
}

// Decide weighs cost against gain.
func (g *Gate) Decide(r Request) Verdict {
	v := Verdict{KVUsage: max(0, r.KVUsage)}
	say := func(compress bool, reason Reason, format string, args ...any) Verdict {
		v.Compress, v.Reason, v.Why = compress, reason, fmt.Sprintf(format, args...)
		return v
	}
	switch {
	case g.opt.Off:
		return say(true, Off, "the gate is off: the policy alone decides")
	case r.Tokens < g.opt.MinTokens:
		return say(false, Short, "%d tokens are fewer than the gate's least, %d", r.Tokens, g.opt.MinTokens)
	case r.KVUsage >= g.opt.KVPressure:
		return say(true, Pressure, "the engine's KV memory is %.0f %% full, from %.0f %% on smaller pages let more sequences run", r.KVUsage*100, g.opt.KVPressure*100)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.models[r.Model]
	if m == nil {
		return say(true, Learning, "nothing has been measured of this model yet")
	}
	slope, ok := m.step.slope()
	if !ok {
		if m.exact++; m.exact%learnEvery == 0 {
			return say(false, Baseline, "one of %d requests is left exact while the time of a step is not known", learnEvery)
		}
	}
	if !ok || m.secondsPerKV.weight < minPages {
		return say(true, Learning, "of this model %.0f replies and %.0f pages have been measured, which is too few or too much alike to predict", m.step.n, m.secondsPerKV.weight)
	}
	v.Output = m.output.or(0)
	if r.MaxOutput > 0 {
		v.Output = min(v.Output, float64(r.MaxOutput))
	}
	tokens := float64(r.Tokens)
	cost := tokens * m.bytesPerToken.value * m.secondsPerKV.value
	saved := v.Output * slope * tokens * (1 - r.Ratio)
	v.CostMS, v.SavedMS = cost*1e3, saved*1e3
	numbers := fmt.Sprintf("%.3g ms saved over %.0f expected tokens of answer, against %.3g ms to move and merge %d tokens", v.SavedMS, v.Output, v.CostMS, r.Tokens)
	if saved >= cost*g.opt.Margin {
		if m.exact++; m.exact%uint64(g.opt.ProbeEvery) == 0 {
			return say(false, Baseline, "%s; one of %d such requests is left exact all the same", numbers, g.opt.ProbeEvery)
		}
		return say(true, Pays, "%s", numbers)
	}
	if m.requests++; m.requests%uint64(g.opt.ProbeEvery) == 0 {
		return say(true, Probe, "%s; one of %d such requests is compressed all the same", numbers, g.opt.ProbeEvery)
	}
	return say(false, Loses, "%s", numbers)
}

// Reply is what an answer that ended well showed. Numbers below zero are not known.
type Reply struct {
	Tenant         string
	Prompt         Prompt // that PromptTokens was estimated from; empty: the count was exact
	PromptTokens   int
	OutputTokens   int
	SecondsPerStep float64 // time between two tokens of the answer
	Compressed     bool    // the step read a smaller context, so that it says nothing about the full one
}

// Reply learns from an answer.
func (g *Gate) Reply(name string, r Reply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.model(name)
	if r.Prompt != (Prompt{}) && r.PromptTokens > 0 {
		g.learnRates(r.Tenant, name, r.Prompt, r.PromptTokens)
	}
	if r.OutputTokens > 0 {
		m.output.add(float64(r.OutputTokens))
	}
	if r.SecondsPerStep > 0 && r.PromptTokens > 0 && r.OutputTokens > 1 && !r.Compressed {
		m.step.add(float64(r.PromptTokens)+float64(r.OutputTokens)/2, r.SecondsPerStep)
	}
}

// Page learns from a page that was compressed: its tokens, its bytes, and the seconds that this took.
func (g *Gate) Page(name string, tokens int, bytes int64, seconds float64) {
	if tokens <= 0 || bytes <= 0 || !(seconds > 0) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.model(name)
	m.bytesPerToken.add(float64(bytes) / float64(tokens))
	m.secondsPerKV.add(seconds / float64(bytes))
}
