package engineproof

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Limits are what cores may cost.
type Limits struct {
	Loss    float64 `json:"max_loss"`    // of the task score, absolute, where right answers are given
	Changed float64 `json:"max_changed"` // share of answers that changed beyond what the engine itself changes, where none are
	Least   int     `json:"min_prompts"` // prompts on cores that a verdict needs
}

// Verdict is one of three.
type Verdict string

// The verdicts.
const (
	Holds    Verdict = "holds"
	Fails    Verdict = "fails"
	NoAnswer Verdict = "no answer"
)

// Report is everything that was asked, and what it says.
type Report struct {
	Engine  string    `json:"engine"`
	Model   string    `json:"model"`
	Began   time.Time `json:"began"`
	Prompts int       `json:"prompts"`
	Limits  Limits    `json:"limits"`
	Results []Result  `json:"results"`
	Cases   []Case    `json:"cases"`
}

// Result sums up the prompts that one tenant's requests met one profile by.
type Result struct {
	Tenant  string  `json:"tenant"`
	Profile string  `json:"profile"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`

	Asked   int `json:"asked"`
	OnCores int `json:"on_cores"` // compared: something shows that cores were used
	Exact   int `json:"exact"`    // left exact by policy or gate
	Failed  int `json:"failed"`   // with an error

	Changed      int      `json:"changed"`       // of those on cores
	ChangedExact int      `json:"changed_exact"` // of the same prompts, between two exact answers
	FirstToken   float64  `json:"first_differing_token"`
	Logprob      *float64 `json:"logprob_difference"`       // mean, nil: not known
	LogprobExact *float64 `json:"logprob_difference_exact"` // between two exact answers

	Tasks      int        `json:"tasks"`
	ScoreExact float64    `json:"score_exact"`
	ScoreCores float64    `json:"score_cores"`
	Loss       [3]float64 `json:"loss"` // mean and its 95 % interval

	PromptTokens float64    `json:"prompt_tokens"` // median
	Slots        float64    `json:"slots"`         // median of what was filled without being computed, on cores; NaN is written as 0
	Ratio        float64    `json:"ratio"`         // median of pages; 0: not known
	TTFT         [2]float64 `json:"ttft_ms"`       // medians: exactly, on cores
	PerSecond    [2]float64 `json:"tokens_per_second"`
}

// judge fills the results in.
func (r *Report) judge() {
	type key struct{ tenant, profile string }
	groups := map[key][]*Case{}
	for i := range r.Cases {
		c := &r.Cases[i]
		k := key{c.Tenant, c.Profile}
		groups[k] = append(groups[k], c)
	}
	for k, cases := range groups {
		one := Result{Tenant: k.tenant, Profile: k.profile, Asked: len(cases)}
		one.sum(cases)
		one.decide(cases, r.Limits)
		r.Results = append(r.Results, one)
	}
	slices.SortFunc(r.Results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Profile, b.Profile))
	})
}

func (r *Result) sum(cases []*Case) {
	var first, prompt, slots, ratio, logprob, logprobExact []float64
	var ttft, speed [2][]float64
	for _, c := range cases {
		switch {
		case c.Error != "":
			r.Failed++
			continue
		case c.Cores.Decision != "compress":
			r.Exact++
			continue
		case !c.compared():
			continue
		}
		r.OnCores++
		if c.Differs.Changed {
			r.Changed++
			first = append(first, float64(c.Differs.First))
		}
		if c.Repeats.Changed {
			r.ChangedExact++
		}
		logprob, logprobExact = known(logprob, c.Differs.Logprob), known(logprobExact, c.Repeats.Logprob)
		if c.HasTask {
			r.Tasks++
			r.ScoreExact, r.ScoreCores = r.ScoreExact+share(c.RightOff), r.ScoreCores+share(c.RightOn)
		}
		prompt = append(prompt, float64(c.Cores.Prompt))
		if c.Cores.Cached > 0 {
			slots = append(slots, float64(c.Cores.Cached))
		}
		if c.Cores.Ratio > 0 {
			ratio = append(ratio, c.Cores.Ratio)
		}
		for i, a := range []*Answer{c.Exact, c.Cores} {
			ttft[i] = append(ttft[i], float64(a.FirstToken)/1e6)
			if a.PerSecond > 0 {
				speed[i] = append(speed[i], a.PerSecond)
			}
		}
	}
	r.Logprob, r.LogprobExact = mean(logprob), mean(logprobExact)
	r.FirstToken, r.PromptTokens, r.Slots, r.Ratio = number(median(first)), number(median(prompt)), number(median(slots)), number(median(ratio))
	for i := range 2 {
		r.TTFT[i], r.PerSecond[i] = number(median(ttft[i])), number(median(speed[i]))
	}
	if r.Tasks > 0 {
		r.ScoreExact, r.ScoreCores = r.ScoreExact/float64(r.Tasks), r.ScoreCores/float64(r.Tasks)
	}
}

// decide gives the verdict: by the task where right answers are given, else by the answers that changed.
func (r *Result) decide(cases []*Case, l Limits) {
	none := func(format string, args ...any) { r.Verdict, r.Why = NoAnswer, fmt.Sprintf(format, args...) }
	if r.OnCores == 0 {
		switch {
		case r.Failed == r.Asked:
			none("every prompt failed, the first with: %s", cases[0].Error)
		case r.Exact > 0 && r.Exact+r.Failed == r.Asked:
			none("policy or gate left every prompt exact (gate: %s)", gates(cases))
		default:
			none("nothing shows that an answer was made on cores: no page came in time, and the engine names no cached tokens (vLLM: --enable-prompt-tokens-details)")
		}
		return
	}
	if r.OnCores < l.Least {
		none("%d prompts were answered on cores, and a verdict needs %d", r.OnCores, l.Least)
		return
	}
	var lost []float64
	for _, c := range cases {
		if c.compared() && c.HasTask {
			lost = append(lost, share(c.RightOff)-share(c.RightOn))
		}
	}
	if len(lost) > 0 {
		m, low, high := paired(lost)
		r.Loss = [3]float64{m, low, high}
	}
	switch {
	case len(lost) >= l.Least:
		r.interval("the task score lost", r.Loss[0], r.Loss[1], r.Loss[2], l.Loss)
	case len(lost) > 0:
		none("%d prompts with a right answer were answered on cores, and a verdict needs %d", len(lost), l.Least)
	default:
		if _, noise := wilson(r.ChangedExact, r.OnCores); float64(r.ChangedExact)/float64(r.OnCores) > l.Changed {
			none("the engine does not repeat itself: %d of %d exact answers changed by themselves (up to %.0f %%)", r.ChangedExact, r.OnCores, 100*noise)
			return
		}
		low, high := wilson(r.Changed, r.OnCores)
		r.interval("answers that changed", float64(r.Changed)/float64(r.OnCores), low, high, l.Changed)
	}
}

// interval holds a value and what it may be against its limit.
func (r *Result) interval(what string, value, low, high, limit float64) {
	r.Why = fmt.Sprintf("%s: %.1f %% (95 %%: %.1f to %.1f), limit %.1f %%", what, 100*value, 100*low, 100*high, 100*limit)
	switch {
	case low > limit:
		r.Verdict = Fails
	case high <= limit:
		r.Verdict = Holds
	default:
		r.Verdict = NoAnswer
		r.Why += ": too few prompts to tell"
	}
}

// Verdict of everything: it fails where one does, and there is none where one has none.
func (r *Report) Verdict() Verdict {
	out := Holds
	for i := range r.Results {
		switch r.Results[i].Verdict {
		case Fails:
			return Fails
		case NoAnswer:
			out = NoAnswer
		}
	}
	if len(r.Results) == 0 {
		return NoAnswer
	}
	return out
}

func gates(cases []*Case) string {
	var out []string
	for _, c := range cases {
		if c.Cores != nil && c.Cores.Gate != "" && !slices.Contains(out, c.Cores.Gate) {
			out = append(out, c.Cores.Gate)
		}
	}
	return fmt.Sprint(out)
}

func share(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func known(all []float64, x *float64) []float64 {
	if x == nil {
		return all
	}
	return append(all, *x)
}

func mean(x []float64) *float64 {
	if len(x) == 0 {
		return nil
	}
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	sum /= float64(len(x))
	return &sum
}

// number is 0 for what is not known.
func number(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return x
}
