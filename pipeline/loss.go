package pipeline

import (
	"path"
	"sort"
	"strings"
)

// point says that pages with this lookup error lost this share of facts.
type point struct{ lookup, lost float64 }

// lossCurves turn a page's lookup error into the expected share of facts lost, by the beginning of the model's name. Each was
// measured on the model: the mean share of answers lost among pages of about that error, over methods, budgets and ratios
// (docs/explanation/algorithm.md). A model that is not here gets the curve of unknown: that of the model which loses most.
var lossCurves = map[string][]point{
	"smollm2":    smollm2,
	"qwen2.5":    qwen,
	"qwen05":     qwen,
	unknownModel: smollm2,
}

const unknownModel = "unknown"

var (
	smollm2 = []point{{0, 0}, {.024, .054}, {.041, .113}, {.056, .140}, {.075, .184}, {.100, .345}, {.127, .370}, {.160, .556}, {.207, .697}, {.280, .793}, {.390, .889}, {1, 1}}
	qwen    = []point{{0, 0}, {.253, .049}, {.331, .056}, {.423, .115}, {.530, .260}, {.596, .478}, {.629, .685}, {.663, .704}, {.720, .862}, {1, 1}}
)

// lossCurve is the curve of a model, such as "HuggingFaceTB/SmolLM2-135M-Instruct" or "smollm2-hf".
func lossCurve(model string) []point {
	name := strings.ToLower(path.Base(model))
	for known, curve := range lossCurves {
		if strings.HasPrefix(name, known) {
			return curve
		}
	}
	return lossCurves[unknownModel]
}

// expectedLoss reads a curve at a lookup error, in straight lines between its points.
func expectedLoss(curve []point, lookup float64) float64 {
	i := sort.Search(len(curve), func(i int) bool { return curve[i].lookup >= lookup })
	switch {
	case i == 0:
		return curve[0].lost
	case i == len(curve):
		return curve[i-1].lost
	}
	a, b := curve[i-1], curve[i]
	return a.lost + (b.lost-a.lost)*(lookup-a.lookup)/(b.lookup-a.lookup)
}
