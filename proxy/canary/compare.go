package canary

import (
	"fmt"
	"math"
	"strings"
)

// Answer is what an engine produced: its tokens as text, and their log probabilities, as many; nil when it gave none.
type Answer struct {
	Tokens   []string
	Logprobs []float64
}

// Difference says how far apart two answers are.
type Difference struct {
	Agreement float64 `json:"agreement"` // share of the longer answer that both begin with, in [0, 1]
	Logprob   float64 `json:"logprob"`   // mean absolute difference of the log probabilities of what both begin with, in nats
}

// Compare looks at what two answers begin with: after the first token that differs they go on from other texts.
func Compare(a, b Answer) Difference {
	longer := max(len(a.Tokens), len(b.Tokens))
	if longer == 0 {
		return Difference{Agreement: 1}
	}
	same := 0
	for same < min(len(a.Tokens), len(b.Tokens)) && a.Tokens[same] == b.Tokens[same] {
		same++
	}
	d := Difference{Agreement: float64(same) / float64(longer)}
	if n := min(same, len(a.Logprobs), len(b.Logprobs)); n > 0 {
		for i := range n {
			d.Logprob += math.Abs(a.Logprobs[i]-b.Logprobs[i]) / float64(n)
		}
	}
	return d
}

// Limit is how far apart answers may be.
type Limit struct {
	Agreement float64 // at least
	Logprob   float64 // at most
}

func (l Limit) holds(d Difference) bool { return d.Agreement >= l.Agreement && d.Logprob <= l.Logprob }

func (d Difference) String() string {
	return fmt.Sprintf("they begin alike for %.0f %% of their length, there with log probabilities %.3f apart", 100*d.Agreement, d.Logprob)
}

// Prompt is the question: facts to remember, and one of them asked for. It has about 1,200 tokens.
func Prompt() string {
	var b strings.Builder
	b.WriteString("The register of the harbour, as it was copied by the clerk.\n\n")
	goods := [...]string{"copper wire", "dried figs", "window glass", "sailcloth", "black tea", "iron nails", "candle wax"}
	towns := [...]string{"Oslo", "Genoa", "Smyrna", "Lisbon", "Bergen", "Odessa", "Cadiz", "Riga", "Malmo", "Trieste", "Varna"}
	for i := range 48 {
		fmt.Fprintf(&b, "Entry %d: the warehouse of %s holds %d boxes of %s, sealed with number %d.\n",
			i+1, towns[i%len(towns)], 100+i*37%400, goods[i%len(goods)], 1000+i*7919%9000)
	}
	b.WriteString("\nAsked which boxes entry 17 speaks of, the clerk read aloud:\nEntry 17: the warehouse of")
	return b.String()
}
