package pipeline

import (
	"path"
	"sort"
	"strings"
)

// lossCurves turn a page's lookup error into the expected share of facts lost, by the beginning of the model's name: points
// {lookup error, share}, as a policy has them. Each was
// measured on the model: the mean share of answers lost among pages of about that error, over methods, budgets and ratios
// (docs/explanation/algorithm.md). A model that is not here gets a curve that is stricter than any.
var lossCurves = map[string][][]float64{
	"smollm2":    smollm2,
	"qwen2.5":    qwen,
	"qwen05":     qwen,
	unknownModel: strict,
}

const unknownModel = "unknown"

var (
	// Of "semproxy calibrate --loss" on 28 texts with 224 facts (docs/explanation/algorithm.md).
	smollm2 = [][]float64{{0, 0}, {.02, .015}, {.04, .048}, {.06, .108}, {.08, .165}, {.10, .198}, {.14, .239}, {.18, .391}, {.22, .539}, {.26, .647}, {.30, .712}, {.38, .782}, {.47, .837}, {1, 1}}
	// Of harder tasks, and of methods that lose more: SmolLM2, 360 requests.
	strict = [][]float64{{0, 0}, {.024, .054}, {.041, .113}, {.056, .140}, {.075, .184}, {.100, .345}, {.127, .370}, {.160, .556}, {.207, .697}, {.280, .793}, {.390, .889}, {1, 1}}
	qwen   = [][]float64{{0, 0}, {.253, .049}, {.331, .056}, {.423, .115}, {.530, .260}, {.596, .478}, {.629, .685}, {.663, .704}, {.720, .862}, {1, 1}}
)

// lossCurve is the curve that the policy has for its model, else that of a known model, such as
// "HuggingFaceTB/SmolLM2-135M-Instruct" or "smollm2-hf".
func lossCurve(model string, own [][]float64) [][]float64 {
	if own != nil {
		return own
	}
	name := strings.ToLower(path.Base(model))
	for known, curve := range lossCurves {
		if strings.HasPrefix(name, known) {
			return curve
		}
	}
	return lossCurves[unknownModel]
}

// expectedLoss reads a curve at a lookup error, in straight lines between its points.
func expectedLoss(curve [][]float64, lookup float64) float64 {
	i := sort.Search(len(curve), func(i int) bool { return curve[i][0] >= lookup })
	switch {
	case i == 0:
		return curve[0][1]
	case i == len(curve):
		return curve[i-1][1]
	}
	a, b := curve[i-1], curve[i]
	return a[1] + (b[1]-a[1])*(lookup-a[0])/(b[0]-a[0])
}
