package page

import (
	"fmt"
	"math"
	"slices"
)

// unbounded checks sizes without limits, for a page that this process made.
var unbounded = Limits{MaxTokens: math.MaxInt, MaxLayers: math.MaxInt, MaxHeads: math.MaxInt, MaxHeadDim: math.MaxInt}

// sizes refuses a shape [layers, heads, rows, dim] that is empty in one of its sizes or over a limit.
func (l Limits) sizes(name string, layers, heads, rows, dim int) error {
	for _, s := range []struct {
		what      string
		got, most int
	}{{"layers", layers, l.MaxLayers}, {"heads", heads, l.MaxHeads}, {"rows", rows, l.MaxTokens}, {"head_dim", dim, l.MaxHeadDim}} {
		what := fmt.Sprintf("tensor %q has a wrong number of %s", name, s.what)
		if s.got < 1 {
			return refuse(CodeBadShape, what, s.got, "at least 1")
		}
		if s.got > s.most {
			return refuse(CodeTooLarge, what, s.got, fmt.Sprintf("at most %d", s.most))
		}
	}
	return nil
}

// onlyKnown refuses a blob with a tensor that the format does not name.
func (c *container) onlyKnown(names []string) error {
	for _, t := range c.tensors {
		if !slices.Contains(names, t.name) {
			return refuse(CodeUnknownTensor, "the blob holds a tensor that the format does not know", quote(t.name), fmt.Sprintf("only %v", names))
		}
	}
	return nil
}

// find is nil when there is no such tensor.
func (c *container) find(name string) *tensor {
	i := slices.IndexFunc(c.tensors, func(t tensor) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return &c.tensors[i]
}

func (c *container) need(name string) (*tensor, error) {
	if t := c.find(name); t != nil {
		return t, nil
	}
	return nil, refuse(CodeMissingTensor, fmt.Sprintf("tensor %q is missing", name), "no such tensor", "the tensor")
}

// exact is the bytes of a tensor that must be there, of this type and shape.
func (c *container) exact(name string, e element, shape ...int) ([]byte, error) {
	t, err := c.need(name)
	if err != nil {
		return nil, err
	}
	if err := t.wantElement(e); err != nil {
		return nil, err
	}
	if !slices.Equal(t.shape, shape) {
		return nil, t.badShape(fmt.Sprint(shape))
	}
	return t.data, nil
}

// exactIfAny is exact for a tensor that may be absent: then nil.
func (c *container) exactIfAny(name string, e element, shape ...int) ([]byte, error) {
	if c.find(name) == nil {
		return nil, nil
	}
	return c.exact(name, e, shape...)
}

// ints reads a required I32 or I64 tensor [tokens].
func (c *container) ints(name string, tokens int) (Ints, error) {
	t, err := c.need(name)
	if err != nil {
		return Ints{}, err
	}
	wide := t.elem == elemI64
	if !wide && t.elem != elemI32 {
		return Ints{}, refuse(CodeBadDType, fmt.Sprintf("tensor %q has a wrong element type", name), t.elem.name, "I32 or I64")
	}
	if !slices.Equal(t.shape, []int{tokens}) {
		return Ints{}, t.badShape(fmt.Sprint([]int{tokens}))
	}
	return Ints{b: t.data, wide: wide}, nil
}

// scales reads k_scale and v_scale: both for FP8, neither for anything else.
func (c *container) scales(d DType, layers, heads int) (k, v []byte, err error) {
	for _, name := range []string{"k_scale", "v_scale"} {
		if err := wantScale(name, c.find(name) != nil, d); err != nil {
			return nil, nil, err
		}
	}
	if k, err = c.exactIfAny("k_scale", elemF32, layers, heads); err != nil {
		return nil, nil, err
	}
	v, err = c.exactIfAny("v_scale", elemF32, layers, heads)
	return k, v, err
}

// wantScale refuses an FP8 tensor without scales, and scales that nothing would apply.
func wantScale(name string, present bool, d DType) error {
	switch {
	case d.IsF8() && !present:
		return refuse(CodeBadScale, fmt.Sprintf("tensor %q is missing", name), "no such tensor", "F32 scales [layers, kv_heads] beside "+d.String())
	case !d.IsF8() && present:
		return refuse(CodeBadScale, fmt.Sprintf("tensor %q scales nothing", name), "scales beside "+d.String(), "scales only beside F8_E4M3 or F8_E5M2")
	}
	return nil
}

func (t *tensor) wantElement(e element) error {
	if t.elem == e {
		return nil
	}
	return refuse(CodeBadDType, fmt.Sprintf("tensor %q has a wrong element type", t.name), t.elem.name, e.name)
}

func (t *tensor) badShape(want string) error {
	return refuse(CodeBadShape, fmt.Sprintf("tensor %q has a wrong shape", t.name), fmt.Sprint(t.shape), want)
}
