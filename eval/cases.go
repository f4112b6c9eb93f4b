package eval

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Case is a context that is compressed and the tokens that are then forced through the model.
type Case struct {
	Name            string
	Context, Follow []int32
	Answers         []Answer // what is to be recalled; none: the case measures perplexity
}

// Answer is a stretch of Case.Follow that the context alone determines.
type Answer struct{ From, To int }

// Text is one line of a text file: ids where given, else text to be encoded.
type Text struct {
	Source string  `json:"source"`
	Text   string  `json:"text"`
	IDs    []int32 `json:"ids"`
}

// ParseTexts reads one JSON object a line: {"source": ..., "text": ...} or {"source": ..., "ids": [...]}.
func ParseTexts(data []byte) ([]Text, error) { return parseLines[Text](data) }

// Windows cuts texts into perplexity cases of context tokens and follow tokens after them: the first window of every text
// that is long enough, then the second windows and so on, at most limit of them. Windows of a text are follow tokens
// apart: contexts overlap, the tokens that are predicted do not. Each starts with the tokens of first.
func Windows(texts []Text, first []int32, context, follow, limit int) []Case {
	var out []Case
	size := context - len(first) + follow
	if size <= follow {
		return nil
	}
	for w := 0; len(out) < limit; w++ {
		before := len(out)
		for i, t := range texts {
			if from := w * follow; len(out) < limit && len(t.IDs) >= from+size {
				ids := append(append([]int32(nil), first...), t.IDs[from:from+size]...)
				out = append(out, Case{Name: fmt.Sprintf("%s %d.%d", t.Source, i, w), Context: ids[:context], Follow: ids[context:]})
			}
		}
		if len(out) == before {
			break
		}
	}
	return out
}

// recallDigits is the length of an answer.
const recallDigits = 4

// ParseRecall reads one JSON object a line: {"context": ids, "questions": ids, "answers": [{"at": index of the first of 4
// digit tokens in questions}]}.
func ParseRecall(data []byte) ([]Case, error) {
	lines, err := parseLines[struct {
		Context   []int32 `json:"context"`
		Questions []int32 `json:"questions"`
		Answers   []struct {
			At int `json:"at"`
		} `json:"answers"`
	}](data)
	if err != nil {
		return nil, err
	}
	out := make([]Case, len(lines))
	for i, l := range lines {
		out[i] = Case{Name: fmt.Sprintf("recall %d", i), Context: l.Context, Follow: l.Questions}
		if len(l.Context) == 0 || len(l.Questions) == 0 || len(l.Answers) == 0 {
			return nil, badData("line %d: context, questions and answers must not be empty", i+1)
		}
		for _, a := range l.Answers {
			// The token before the answer predicts its first digit, after compression.
			if a.At < 1 || a.At > len(l.Questions)-recallDigits {
				return nil, badData("line %d: an answer at %d does not lie within %d question tokens", i+1, a.At, len(l.Questions))
			}
			out[i].Answers = append(out[i].Answers, Answer{From: a.At, To: a.At + recallDigits})
		}
	}
	return out, nil
}

func parseLines[T any](data []byte) ([]T, error) {
	var out []T
	for i, line := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, badData("line %d: %v", i+1, err)
		}
		out = append(out, v)
	}
	return out, nil
}
