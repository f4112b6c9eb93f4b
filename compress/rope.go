package compress

import (
	"fmt"
	"math"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/internal/simd"
)

// Rope says how the model rotated its keys: position p turns pair i of the rotary dimensions by p * freq[i].
// Scaling changes only the frequencies; a constant factor on cosine and sine (YaRN) cancels and needs no field.
type Rope struct {
	Type        string  // "default", "linear", "ntk", "yarn", "llama3" or "none"
	Theta       float64 // base of the frequencies, 10000 in the original
	Dim         int     // rotary dimensions, even; the others pass untouched
	Interleaved bool    // pairs are (2i, 2i+1) as in GPT-J, not (i, i+Dim/2) as in Llama

	Factor         float64 // linear, ntk, yarn, llama3
	LowFreq        float64 // llama3: low_freq_factor
	HighFreq       float64 // llama3: high_freq_factor
	OriginalMaxTok int     // llama3, yarn: original_max_position_embeddings
	BetaFast       float64 // yarn, 32 when 0
	BetaSlow       float64 // yarn, 1 when 0
}

// Frequencies returns the rotation per position of each of the Dim/2 pairs, or an error for a type that cannot be
// undone exactly (dynamic NTK depends on the length at the time of writing) or numbers that make no sense.
// The formulas are those of the papers: linear (Chen 2023), NTK-aware, YaRN (Peng 2023), Llama 3.1.
func (r Rope) Frequencies() ([]float64, error) {
	if r.Type == "none" || r.Dim == 0 {
		return nil, nil
	}
	half := r.Dim / 2
	theta, div := r.Theta, 1.0
	if r.Dim < 0 || r.Dim%2 != 0 || !(theta >= 1) || math.IsInf(theta, 1) {
		return nil, badInput(codes.PageBadRope, "rope needs an even rotary_dim and a finite theta of at least 1, got %d and %v", r.Dim, theta)
	}
	if r.Type != "default" && (!(r.Factor >= 1) || math.IsInf(r.Factor, 1)) {
		return nil, badInput(codes.PageBadRope, "rope type %s needs a scaling factor of at least 1, got %v", r.Type, r.Factor)
	}
	scaled := r.Type == "llama3" || r.Type == "yarn"
	if scaled && r.OriginalMaxTok <= 0 {
		return nil, badInput(codes.PageBadRope, "rope type %s needs original_max_position_embeddings, got %d", r.Type, r.OriginalMaxTok)
	}
	switch r.Type {
	case "default", "llama3", "yarn":
	case "linear":
		div = r.Factor
	case "ntk":
		if r.Dim <= 2 {
			return nil, badInput(codes.PageBadRope, "rope type ntk needs more than 2 rotary dims, got %d", r.Dim)
		}
		theta *= math.Pow(r.Factor, float64(r.Dim)/float64(r.Dim-2))
	default:
		return nil, badInput(codes.PageBadRope, "rope type %q is not supported: its rotation cannot be undone from positions alone", r.Type)
	}
	f := make([]float64, half)
	for i := range f {
		f[i] = math.Pow(theta, -float64(i)/float64(half)) / div
	}
	switch r.Type {
	case "llama3":
		return f, r.llama3(f)
	case "yarn":
		r.yarn(f)
	}
	return f, nil
}

// llama3 divides slow pairs by Factor, keeps fast ones and blends between.
func (r Rope) llama3(f []float64) error {
	if !(r.LowFreq > 0) || !(r.HighFreq > r.LowFreq) {
		return badInput(codes.PageBadRope, "rope type llama3 needs 0 < low_freq_factor < high_freq_factor, got %v and %v", r.LowFreq, r.HighFreq)
	}
	for i, w := range f {
		turns := float64(r.OriginalMaxTok) * w / (2 * math.Pi)
		blend := min(max((turns-r.LowFreq)/(r.HighFreq-r.LowFreq), 0), 1)
		f[i] = (1-blend)*w/r.Factor + blend*w
	}
	return nil
}

// yarn interpolates the pairs that turn fewer than BetaSlow times within the original context and keeps those that turn
// more than BetaFast times.
func (r Rope) yarn(f []float64) {
	fast, slow := r.BetaFast, r.BetaSlow
	if fast == 0 {
		fast = 32
	}
	if slow == 0 {
		slow = 1
	}
	at := func(turns float64) float64 {
		return float64(r.Dim) * math.Log(float64(r.OriginalMaxTok)/(turns*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	lo, hi := max(math.Floor(at(fast)), 0), min(math.Ceil(at(slow)), float64(r.Dim-1))
	if lo == hi {
		hi += 0.001
	}
	for i, w := range f {
		interpolate := min(max((float64(i)-lo)/(hi-lo), 0), 1)
		f[i] = w/r.Factor*interpolate + w*(1-interpolate)
	}
}

func (r Rope) String() string { return fmt.Sprintf("%s(theta=%g, dim=%d)", r.Type, r.Theta, r.Dim) }

// rotateRow turns the pairs of x (one key) by the angles whose cosines and sines are given.
func rotateRow(x, cos, sin []float32, interleaved bool) {
	if interleaved {
		x = x[:2*len(cos)]
		for i, c := range cos {
			s, u, v := sin[i], x[2*i], x[2*i+1]
			x[2*i], x[2*i+1] = u*c-v*s, v*c+u*s
		}
		return
	}
	half := len(cos)
	lo, hi := x[:half], x[half:2*half]
	sin = sin[:half]
	for i, c := range cos {
		s, u, v := sin[i], lo[i], hi[i]
		lo[i], hi[i] = u*c-v*s, v*c+u*s
	}
}

// unrotateRow turns them back.
func unrotateRow(kn *simd.Kernels, x, cos, sin []float32, interleaved bool) {
	if interleaved {
		x = x[:2*len(cos)]
		for i, c := range cos {
			s, u, v := sin[i], x[2*i], x[2*i+1]
			x[2*i], x[2*i+1] = u*c+v*s, v*c-u*s
		}
		return
	}
	half := len(cos)
	kn.Unrotate(x[:half], x[half:2*half], cos, sin)
}

// ropeTable fills cos and sin, [len(pos), len(freq)], for integer positions. Runs of consecutive positions advance by a
// complex product in float64, restarted from the exact angle every ropeResync rows.
const ropeResync = 64

func ropeTable(cos, sin []float32, pos []int32, freq []float64, scratch []complex128) {
	h := len(freq)
	step, cur := scratch[:h], scratch[h:2*h]
	for i, w := range freq {
		s, c := math.Sincos(w)
		step[i] = complex(c, s)
	}
	for r, p := range pos {
		if r%ropeResync == 0 || p != pos[r-1]+1 {
			for i, w := range freq {
				s, c := math.Sincos(float64(p) * w)
				cur[i] = complex(c, s)
			}
		} else {
			for i, z := range step {
				cur[i] *= z
			}
		}
		cr, sr := cos[r*h:r*h+h], sin[r*h:r*h+h]
		for i, z := range cur {
			cr[i], sr[i] = float32(real(z)), float32(imag(z))
		}
	}
}
