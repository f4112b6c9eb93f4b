package eval

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The words of facts that are put into texts. Who lives where is drawn, so nobody knows it without the text.
var (
	factKeys   = strings.Fields("amber brisk cedar delta ember fjord grove haven ivory jolly karma lemon maple noble ocean pearl quartz raven sable tulip")
	factNames  = strings.Fields("Alice Brian Carla David Elena Frank Grace Henry Irene Jacob Karen Louis Maria Nathan Olivia Peter Simon Teresa")
	factCities = strings.Fields("Paris London Berlin Madrid Rome Vienna Lisbon Dublin Oslo Prague Athens Warsaw Cairo Tokyo Delhi Lima Boston Denver")
	factJobs   = strings.Fields("doctor teacher lawyer baker pilot farmer painter singer nurse chef writer dentist plumber soldier driver")
)

// fact is a sentence for the text, the question for it with the beginning of the answer, and the answer.
type fact struct{ text, question, answer string }

// factsPerText is how many facts are put into a text.
const factsPerText = 8

// FactCases puts facts, drawn with a seed, into the contexts of windows, each after the end of a clause, and asks for them:
// numbers by their key, and where somebody lives or what they do (RULER's kinds). encode gives the tokens of a text.
func FactCases(windows []Case, encode func(string) []int32, boundary func([]int32) []byte, seed uint64) []Case {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a measurement that can be repeated
	out := make([]Case, 0, len(windows))
	for i := range windows {
		w := &windows[i]
		facts := drawFacts(rng)
		c := Case{Name: "facts in " + w.Name, Context: insertFacts(rng, w.Context, facts, encode, boundary)}
		for _, f := range shuffled(rng, facts) {
			c.Follow = append(c.Follow, encode(f.question)...)
			from := len(c.Follow)
			c.Follow = append(c.Follow, encode(f.answer)...)
			c.Answers = append(c.Answers, Answer{From: from, To: len(c.Follow)})
			c.Follow = append(c.Follow, encode(".")...)
		}
		out = append(out, c)
	}
	return out
}

// drawFacts are as many numbers as facts about people.
func drawFacts(rng *rand.Rand) (out []fact) {
	keys, names := shuffled(rng, factKeys), shuffled(rng, factNames)
	for i := range factsPerText / 2 {
		number := fmt.Sprint(1000 + rng.IntN(9000))
		begins := fmt.Sprintf("The special magic number for %s is", keys[i])
		out = append(out, fact{text: fmt.Sprintf(" %s %s.", begins, number), answer: " " + number,
			question: fmt.Sprintf("\n\nQuestion: What is the special magic number for %s mentioned in the text?\nAnswer: %s", keys[i], begins)})
		city, job := factCities[rng.IntN(len(factCities))], factJobs[rng.IntN(len(factJobs))]
		f := fact{text: fmt.Sprintf(" %s lives in %s and works as a %s.", names[i], city, job), answer: " " + city,
			question: fmt.Sprintf("\n\nQuestion: In which city does %s live?\nAnswer: %s lives in", names[i], names[i])}
		if i%2 == 1 {
			f.answer, f.question = " "+job, fmt.Sprintf("\n\nQuestion: What is the job of %s?\nAnswer: %s works as a", names[i], names[i])
		}
		out = append(out, f)
	}
	return out
}

// insertFacts puts each fact behind a token that ends a clause, or behind any where nobody knows.
func insertFacts(rng *rand.Rand, ids []int32, facts []fact, encode func(string) []int32, boundary func([]int32) []byte) []int32 {
	var ends []int
	if boundary != nil {
		for i, end := range boundary(ids) {
			if end != 0 && i > 0 {
				ends = append(ends, i+1)
			}
		}
	}
	at := make([]int, len(facts))
	for i := range at {
		if at[i] = 1 + rng.IntN(len(ids)); len(ends) > 0 {
			at[i] = ends[rng.IntN(len(ends))]
		}
	}
	slices.Sort(at)
	var out []int32
	last := 0
	for i, f := range facts {
		out = append(append(out, ids[last:at[i]]...), encode(f.text)...)
		last = at[i]
	}
	return append(out, ids[last:]...)
}

func shuffled[T any](rng *rand.Rand, from []T) []T {
	out := slices.Clone(from)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
