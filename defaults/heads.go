package defaults

import (
	"crypto/sha256"
	"fmt"
	"math"
	"path"
	"strings"
)

// knownHeads are the weights of the KV heads of a model that was measured, [layers][KV heads]. Few heads look things up, the same ones
// in any text, and need most of their tokens, which no page without a question shows (docs/explanation/algorithm.md).
type knownHeads struct {
	name    string  // how the model's name begins
	from    float64 // the ratio of tokens kept from which on the weights do not count
	whole   float64 // and up to which they count in full
	beside  bool    // whether they help beside a page's own importance
	weights [][]float64
}

var known = []knownHeads{
	{"smollm2", 0.5, 0.25, true, smollm2Heads}, // no other size has three heads
	{"qwen2.5-coder-0.5b", 0.25, 0.125, false, qwenHeads}, {"qwen2.5-0.5b", 0.25, 0.125, false, qwenHeads}, {"qwen05", 0.25, 0.125, false, qwenHeads},
}

// Where a page says itself how much each token is needed, weights that help beside it count at smaller ratios only.
const (
	importantFrom  = 0.25
	importantWhole = 0.125
)

// HeadsVersion names what is known of a model's heads at a ratio, so that cores that were made with other weights are not taken for
// those of these; empty where nothing is.
func HeadsVersion(model string, ratio float64) string {
	if k := headsOf(model); k != nil && k.share(ratio, false) > 0 {
		sum := sha256.Sum256(fmt.Append(nil, k.from, k.whole, k.beside, importantFrom, importantWhole, k.weights))
		return fmt.Sprintf(" heads %x", sum[:8])
	}
	return ""
}

// HeadWeights appends to dst the weights of layers first to first+layers-1, of so many KV heads each, at a ratio of tokens kept:
// [layers x KV heads]. It appends nothing where the model is not known by this name and shape, or the ratio is not small. important: the
// page says how much each token is needed.
func HeadWeights(dst []float64, model string, first, layers, heads int, ratio float64, important bool) []float64 {
	k := headsOf(model)
	if k == nil || first < 0 || first > len(k.weights)-layers || len(k.weights[0]) != heads {
		return dst
	}
	share := k.share(ratio, important)
	if !(share > 0) {
		return dst
	}
	for _, layer := range k.weights[first : first+layers] {
		for _, w := range layer {
			dst = append(dst, math.Round(math.Pow(w, share)*1024)/1024) // rounded, so that every machine has the same
		}
	}
	return dst
}

// share is the power that the weights are taken to: from 0 at the ratio from to 1 at the ratio whole, by the logarithm.
func (k *knownHeads) share(ratio float64, important bool) float64 {
	from, whole := k.from, k.whole
	if important && !k.beside {
		return 0
	}
	if important {
		from, whole = importantFrom, importantWhole
	}
	return min(math.Log(from/ratio)/math.Log(from/whole), 1)
}

func headsOf(model string) *knownHeads {
	name := strings.ToLower(path.Base(model))
	for i := range known {
		if strings.HasPrefix(name, known[i].name) {
			return &known[i]
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
