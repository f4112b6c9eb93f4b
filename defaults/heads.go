package defaults

import (
	"crypto/sha256"
	"fmt"
	"math"
	"path"
	"strings"
)

// Few of a model's KV heads look things up, the same ones in any text, and need most of their tokens. At small ratios these weights,
// which "semproxy calibrate" measured, keep twice the facts; from a quarter of the tokens on the price of merges does it alone
// (docs/explanation/algorithm.md).
const (
	HeadsWhole = 0.125 // at this ratio and below, the weights count in full
	HeadsFrom  = 0.25  // from this ratio on, not at all
)

// known are the models that were measured, by the beginning of their names, with the weights of their heads: [layers][KV heads].
var known = []struct {
	name    string
	weights [][]float64
}{
	{"smollm2-135m", smollm2Heads}, {"smollm2-hf", smollm2Heads},
	{"qwen2.5-coder-0.5b", qwenHeads}, {"qwen2.5-0.5b", qwenHeads}, {"qwen05", qwenHeads},
}

// HeadsVersion names what is known of a model's heads, so that cores that were made with other weights are not taken for those of
// these; empty where the model is not known.
func HeadsVersion(model string) string {
	if w := weightsOf(model); w != nil {
		sum := sha256.Sum256(fmt.Append(nil, w))
		return fmt.Sprintf(" heads %x", sum[:8])
	}
	return ""
}

// HeadWeights appends to dst the weights of such layers at a ratio of tokens kept, [layers x KV heads]; nothing where the model is not
// known, or the ratio is not small.
func HeadWeights(dst []float64, model string, first, layers, heads int, ratio float64) []float64 {
	share := min(math.Log2(HeadsFrom/ratio)/math.Log2(HeadsFrom/HeadsWhole), 1)
	if !(share > 0) {
		return dst
	}
	for _, layer := range headsOf(model, first, layers, heads) {
		for _, w := range layer {
			dst = append(dst, math.Round(math.Pow(w, share)*1024)/1024) // rounded, so that every machine has the same
		}
	}
	return dst
}

// headsOf has the weights of those layers; nil: the model is not known by this name and shape.
func headsOf(model string, first, layers, heads int) [][]float64 {
	w := weightsOf(model)
	if w == nil || first < 0 || first > len(w)-layers || len(w[0]) != heads {
		return nil
	}
	return w[first : first+layers]
}

func weightsOf(model string) [][]float64 {
	name := strings.ToLower(path.Base(model))
	for _, k := range known {
		if strings.HasPrefix(name, k.name) {
			return k.weights
		}
	}
	return nil
}

// Of SmolLM2: the root of what "semproxy calibrate" prints times each head's share of the tokens that KVzip keeps, which it measures.
// Of Qwen: what "semproxy calibrate" prints. Each is the better one on its model.
var (
	smollm2Heads = [][]float64{
		{.351, .238, .315}, {.608, .936, .604}, {.629, .571, .764}, {.903, 1.01, .432}, {.788, .375, .52},
		{.782, .64, 1.09}, {.311, .517, .592}, {.559, .693, .758}, {1.05, .695, .831}, {1.41, .522, .887},
		{.509, .423, .567}, {.381, .679, .475}, {.766, .777, .866}, {.63, .633, .757}, {.873, 3.69, .877},
		{.557, .67, 2.26}, {.466, .819, .789}, {.77, 3.04, .702}, {.783, .787, 5.57}, {.715, .407, .504},
		{.741, 3.17, 5.51}, {.929, .862, 2}, {.977, 1.56, 2.14}, {4.16, .845, 2.76}, {1.44, 1.24, 1.13},
		{.907, .383, .26}, {.903, .987, .354}, {.499, .371, .254}, {.987, .459, .597}, {.345, .353, .744},
	}
	qwenHeads = [][]float64{
		{.193, 31.6}, {.503, .193}, {.193, .193}, {1.03, .262}, {.341, .193}, {.41, .392},
		{.476, .413}, {.371, .423}, {.193, .327}, {.323, .161}, {.328, .392}, {.312, .1},
		{.452, .473}, {.581, .1}, {.354, .192}, {.288, .167}, {.696, .807}, {.443, .446},
		{.527, .383}, {.357, .251}, {.387, .293}, {.315, .311}, {.161, .1}, {.425, .22},
	}
)
