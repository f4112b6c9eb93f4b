package eval

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/transport/page/bits"
)

// Method makes a cache smaller. An implementation may keep buffers between calls: it is used by one goroutine.
type Method interface {
	// Compress fills out, which has been Reset to the cache's shape, with about ratio times the tokens of c per layer and
	// head. It returns how long the compression itself took, or zero for the caller to take the time of the call.
	Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error)
}

// maker builds a method from the parameters of its spec.
type maker func(p *params) (Method, error)

// makers are the methods by name: those of compress first, which policies may choose, then baselines in plain Go. The
// plain- ones are a second, independent reading of methods that compress has too.
var makers = map[string]maker{
	"none":     func(*params) (Method, error) { return none{}, nil },
	"semantic": preset(compress.Semantic),
	"weighted": newWeighted,
	"equal":    newEqual,
	"hybrid":   preset(compress.Hybrid),
	"paper":    preset(compress.Paper),
	"window":   preset(compress.Window),
	"keynorm":  preset(compress.KeyNorm),
	"snapkv":   preset(compress.SnapKV),
	"uniform":  preset(compress.Uniform),

	"random":        func(p *params) (Method, error) { return newEvict(p, randomScore) },
	"h2o":           func(p *params) (Method, error) { return newEvict(p, massScore) },
	"keydiff":       func(p *params) (Method, error) { return newEvict(p, outlierScore) },
	"plain-window":  func(p *params) (Method, error) { return newEvict(p, windowScore) },
	"plain-keynorm": func(p *params) (Method, error) { return newEvict(p, keyNormScore) },
	"plain-snapkv":  func(p *params) (Method, error) { return newEvict(p, lastQueriesScore) },
	"plain-uniform": newStride,
}

func preset(options func() compress.Options) maker {
	return func(p *params) (Method, error) { return newMerge(p, options()) }
}

// Names lists the methods that [Build] knows.
func Names() []string { return sortedKeys(makers) }

// Build makes a method from a spec: a name, parameters after colons, modifiers after plus signs, such as
// "semantic:exact=0.5:budget=equal:shared+fp8". Modifiers: fp8 rounds the result to FP8 with a scale per head, nobias
// leaves the bias out (no proportional attention), int4 and int8 write the result in few bits as the wire does (they come last),
// bylength hides the delimiters. The methods that merge run on comp.
func Build(spec string, comp *compress.Compressor) (Method, error) {
	parts := strings.Split(spec, "+")
	fields := strings.Split(parts[0], ":")
	name := fields[0]
	newMethod, ok := makers[name]
	if !ok {
		return nil, badMethod("method %q is not known, only %s", name, strings.Join(Names(), ", "))
	}
	p := &params{comp: comp, values: map[string]string{}}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		p.values[key] = value
	}
	m, err := newMethod(p)
	if err == nil {
		err = p.rest()
	}
	if err != nil {
		return nil, badMethod("method %q: %v", spec, err)
	}
	for _, modifier := range parts[1:] {
		switch modifier {
		case "fp8":
			if c, ok := m.(*merge); ok {
				c.opt.FP8 = compress.F8E4M3
			} else {
				m = fp8{m}
			}
		case "nobias":
			m = noBias{m}
		case "int4":
			m = &coded{Method: m, bits: bits.Four}
		case "int8":
			m = &coded{Method: m, bits: bits.Eight}
		case "bylength":
			m = byLength{m}
		default:
			return nil, badMethod("method %q: modifier %q is not known, only fp8, int4, int8, nobias and bylength", spec, modifier)
		}
	}
	return m, nil
}

// params are the key=value parts of a spec. A key without a value is true.
type params struct {
	comp   *compress.Compressor
	values map[string]string
	err    error
}

func (p *params) take(key string) (string, bool) {
	v, ok := p.values[key]
	delete(p.values, key)
	return v, ok
}

func (p *params) number(key string, to *float64) {
	if v, ok := p.take(key); ok {
		x, err := strconv.ParseFloat(v, 64)
		if err != nil && p.err == nil {
			p.err = badMethod("%s must be a number, got %q", key, v)
		}
		*to = x
	}
}

// numbers are divided by slashes.
func (p *params) numbers(key string, to *[]float64) {
	v, ok := p.take(key)
	if !ok {
		return
	}
	for _, field := range strings.Split(v, "/") {
		x, err := strconv.ParseFloat(field, 64)
		if err != nil && p.err == nil {
			p.err = badMethod("%s must be numbers divided by /, got %q", key, v)
		}
		*to = append(*to, x)
	}
}

func (p *params) count(key string, to *int) {
	x := float64(*to)
	p.number(key, &x)
	if x != float64(int(x)) && p.err == nil {
		p.err = badMethod("%s must be a whole number, got %v", key, x)
	}
	*to = int(x)
}

func (p *params) flag(key string, to *bool) {
	if v, ok := p.take(key); ok {
		*to = v == "" || v == "true" || v == "1"
	}
}

func (p *params) choice(key string, choices map[string]func()) {
	v, ok := p.take(key)
	if !ok {
		return
	}
	set, ok := choices[v]
	if ok {
		set()
	} else if p.err == nil {
		p.err = badMethod("%s must be one of %s, got %q", key, strings.Join(sortedKeys(choices), ", "), v)
	}
}

// rest reports the first error, or a key that nobody took.
func (p *params) rest() error {
	if p.err != nil {
		return p.err
	}
	for _, key := range sortedKeys(p.values) {
		return badMethod("parameter %q is not known", key)
	}
	return nil
}

// none keeps everything, whatever the ratio.
type none struct{}

func (none) Compress(_ context.Context, c *Cache, _ float64, out *Cores) (time.Duration, error) {
	for i := range out.Planes {
		for t := range c.Tokens {
			out.Planes[i].Keep(&c.Full.Planes[i], t, c.Dim)
		}
	}
	return 0, nil
}
