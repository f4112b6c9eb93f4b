package page

import (
	"fmt"
	"math"
	"strconv"
)

// Rope says how the engine rotated the keys of a page, as the metadata value "rope": a flat JSON object.
//
// This package checks that the numbers are numbers; which scaling fields a type needs, and what they mean, is known to
// whoever un-rotates the keys. A scaling field that is absent is 0.
type Rope struct {
	Type        string  // default, linear, dynamic, yarn, llama3, ntk or none
	Theta       float64 // the base, > 0; may be 0 for none
	RotaryDim   int     // dimensions that rotate: even, 0..head_dim; the rest pass through
	Interleaved bool    // pairs are (0,1), (2,3) ...; otherwise (0, dim/2), (1, dim/2+1) ...

	Factor              float64
	LowFreqFactor       float64
	HighFreqFactor      float64
	OriginalMaxPosition int // original_max_position, in tokens
	AttentionFactor     float64
	BetaFast            float64
	BetaSlow            float64
}

// floats lists the scaling numbers with their JSON names, in the order in which they are written.
func (r *Rope) floats() [6]struct {
	name  string
	value *float64
} {
	return [6]struct {
		name  string
		value *float64
	}{
		{"factor", &r.Factor}, {"low_freq_factor", &r.LowFreqFactor}, {"high_freq_factor", &r.HighFreqFactor},
		{"attention_factor", &r.AttentionFactor}, {"beta_fast", &r.BetaFast}, {"beta_slow", &r.BetaSlow},
	}
}

const ropeTypes = "default, linear, dynamic, yarn, llama3, ntk or none"

func knownRopeType(s string) bool {
	switch s {
	case "default", "linear", "dynamic", "yarn", "llama3", "ntk", "none":
		return true
	}
	return false
}

// parseRope reads the metadata value. Unknown and repeated fields are refused.
func parseRope(text string, headDim int) (Rope, error) {
	var r Rope
	in := &cursor{text: []byte(text), code: CodeBadRope, name: `metadata "rope"`}
	seen := map[string]bool{}
	err := in.object(16, func(key string) (err error) {
		seen[key] = true
		switch key {
		case "type":
			r.Type, err = in.str()
			return err
		case "interleaved":
			r.Interleaved, err = in.boolean()
			return err
		case "theta":
			r.Theta, err = in.float(key)
			return err
		case "rotary_dim":
			r.RotaryDim, err = in.whole(key)
			return err
		case "original_max_position":
			r.OriginalMaxPosition, err = in.whole(key)
			return orNotPositive(err, key, float64(r.OriginalMaxPosition))
		}
		for _, f := range r.floats() {
			if f.name == key {
				*f.value, err = in.float(key)
				return orNotPositive(err, key, *f.value)
			}
		}
		return refuse(CodeBadRope, `metadata "rope" has an unknown field`, quote(key), "only fields of the format")
	})
	if err == nil {
		err = in.end()
	}
	if err != nil {
		return Rope{}, err
	}
	if r.Type != "none" {
		for _, key := range []string{"type", "theta", "rotary_dim", "interleaved"} {
			if !seen[key] {
				return Rope{}, refuse(CodeBadRope, `metadata "rope" lacks a field`, "no "+key, "type, theta, rotary_dim and interleaved")
			}
		}
	}
	if err := r.check(headDim); err != nil {
		return Rope{}, err
	}
	return r, nil
}

// check bounds every number.
func (r *Rope) check(headDim int) error {
	bad := func(field string, got, want any) error {
		return refuse(CodeBadRope, `metadata "rope": `+field, got, want)
	}
	switch {
	case !knownRopeType(r.Type):
		return bad("the type is unknown", quote(r.Type), ropeTypes)
	case !(r.Theta > 0) && (r.Theta != 0 || r.Type != "none") || math.IsInf(r.Theta, 0):
		return bad("theta", r.Theta, "finite and positive")
	case r.RotaryDim < 0 || r.RotaryDim%2 != 0 || r.RotaryDim > headDim:
		return bad("rotary_dim", r.RotaryDim, fmt.Sprintf("even, from 0 to head_dim %d", headDim))
	case r.RotaryDim == 0 && r.Type != "none":
		return bad("rotary_dim", 0, "at least 2, or type none")
	case r.OriginalMaxPosition < 0:
		return bad("original_max_position", r.OriginalMaxPosition, "positive, or absent")
	}
	for _, f := range r.floats() {
		if !(*f.value >= 0) || math.IsInf(*f.value, 0) {
			return bad(f.name, *f.value, "finite and positive, or absent")
		}
	}
	return nil
}

// json writes the metadata value: the same Rope always gives the same bytes.
func (r Rope) json() string {
	b := appendString([]byte(`{"type":`), r.Type)
	b = append(b, `,"theta":`...)
	b = strconv.AppendFloat(b, r.Theta, 'g', -1, 64)
	b = append(b, `,"rotary_dim":`...)
	b = strconv.AppendInt(b, int64(r.RotaryDim), 10)
	b = append(b, `,"interleaved":`...)
	b = strconv.AppendBool(b, r.Interleaved)
	if r.OriginalMaxPosition != 0 {
		b = append(b, `,"original_max_position":`...)
		b = strconv.AppendInt(b, int64(r.OriginalMaxPosition), 10)
	}
	for _, f := range r.floats() {
		if *f.value != 0 {
			b = append(b, `,"`+f.name+`":`...)
			b = strconv.AppendFloat(b, *f.value, 'g', -1, 64)
		}
	}
	return string(append(b, '}'))
}

func (c *cursor) float(key string) (float64, error) {
	raw, err := c.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return 0, refuse(c.code, c.name+": "+key, quote(raw), "a finite number")
	}
	return f, nil
}

func (c *cursor) whole(key string) (int, error) {
	raw, err := c.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(raw, 10, 32)
	if err != nil {
		return 0, refuse(c.code, c.name+": "+key, quote(raw), "a whole number below 2^31")
	}
	return int(n), nil
}

// orNotPositive refuses a scaling field that was given but is not positive, so that 0 can mean absent.
func orNotPositive(err error, key string, value float64) error {
	if err == nil && !(value > 0) {
		return refuse(CodeBadRope, `metadata "rope": `+key, value, "positive, or absent")
	}
	return err
}
