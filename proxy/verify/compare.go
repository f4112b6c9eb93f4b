package verify

import (
	"encoding/json"
	"errors"
	"math"
)

// Answer is what an engine produced: its tokens, and their log probabilities, as many; nil where it gives none. Without them the text
// is one token.
type Answer struct {
	tokens   []string
	logprobs []float64
}

// Difference says how an answer differs from the exact one.
type Difference struct {
	Changed  bool
	First    int     // the token from which on it does
	Compared int     // tokens whose log probabilities were compared
	Logprob  float64 // mean absolute difference of them, in nats
}

func compare(exact, other Answer) (d Difference) {
	n := min(len(exact.tokens), len(other.tokens))
	for d.First < n && exact.tokens[d.First] == other.tokens[d.First] {
		d.First++
	}
	d.Changed = d.First < n || len(exact.tokens) != len(other.tokens)
	if d.Compared = min(d.First, len(exact.logprobs), len(other.logprobs)); d.Compared > 0 {
		for i := range d.Compared {
			d.Logprob += math.Abs(exact.logprobs[i]-other.logprobs[i]) / float64(d.Compared)
		}
	}
	return d
}

// read takes an answer of /v1/chat/completions or /v1/completions.
func read(text []byte) (Answer, error) {
	var reply struct {
		Choices []struct {
			Text     string
			Message  json.RawMessage
			Logprobs *struct {
				Tokens        []string
				TokenLogprobs []float64 `json:"token_logprobs"`
				Content       []struct {
					Token   string
					Logprob float64
				}
			}
		}
	}
	if json.Unmarshal(text, &reply) != nil || len(reply.Choices) == 0 {
		return Answer{}, errors.New("the engine did not answer with a choice")
	}
	one := reply.Choices[0]
	var a Answer
	if l := one.Logprobs; l != nil {
		a.tokens, a.logprobs = l.Tokens, l.TokenLogprobs
		for _, t := range l.Content {
			a.tokens, a.logprobs = append(a.tokens, t.Token), append(a.logprobs, t.Logprob)
		}
	}
	if len(a.tokens) == 0 {
		a.tokens, a.logprobs = []string{one.Text + said(one.Message)}, nil
	}
	return a, nil
}

// said is what a message says: its content, and the functions that it calls.
func said(message json.RawMessage) string {
	var m struct {
		Content string
		Calls   []struct {
			Function struct{ Name, Arguments string }
		} `json:"tool_calls"`
	}
	if len(message) == 0 || json.Unmarshal(message, &m) != nil {
		return string(message)
	}
	text := m.Content
	for _, c := range m.Calls {
		text += "\x00" + c.Function.Name + "\x00" + c.Function.Arguments
	}
	return text
}
