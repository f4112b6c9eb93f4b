package page

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/semproxy/semproxy/transport/page/bits"
)

var (
	paddedTensors = []string{"k", "v", "k_scale", "v_scale", "counts", "bias", "positions", "assign", "dropped"}
	packedTensors = append([]string{"slots"}, paddedTensors...)
)

// DecodeCores reads cores of either form, verifies their checksum, and holds their counts against the tokens (see CheckCounts). It
// copies no tensor, unless they are coded: the slices alias blob, which must stay unchanged while the cores are in use. Every error is an
// *Error.
func DecodeCores(blob []byte, lim Limits) (*Cores, error) {
	lim = lim.orDefaults()
	in, err := open(blob, lim)
	if err != nil {
		return nil, err
	}
	c := &Cores{}
	checksum, packed, err := c.readMetadata(&in)
	if err != nil {
		return nil, err
	}
	known := paddedTensors
	switch {
	case c.Coded != nil && packed:
		known = codedTensors
	case c.Coded != nil:
		known = codedTensors[1:] // no slots
	case packed:
		known = packedTensors
	}
	if err := in.onlyKnown(known); err != nil {
		return nil, err
	}
	if err := c.readTensors(&in, packed, lim); err != nil {
		return nil, err
	}
	if err := c.identity().check(c.Tokens); err != nil {
		return nil, err
	}
	if err := verify(in.body, checksum); err != nil {
		return nil, err
	}
	if c.Coded != nil {
		if err := c.expand(); err != nil {
			return nil, err
		}
	}
	if err := c.checkNumbers(); err != nil {
		return nil, err
	}
	if err := c.CheckCounts(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cores) readMetadata(in *container) (checksum string, packed bool, err error) {
	m := &metadata{m: in.meta}
	m.format(FormatCores)
	id := m.identity()
	c.Tokens = m.whole("tokens")
	dtype, ratio := m.take("dtype"), m.take("ratio")
	checksum = m.take(checksumKey)
	packed = m.flag(packedKey, packedValue)
	c.Folded = m.flag(foldedKey, foldedValue)
	c.readBits(m)
	if m.err != nil {
		return "", false, m.err
	}
	c.Model, c.Sequence, c.Layout = id.model, id.sequence, id.layout
	c.LayerFirst, c.TokenFirst, c.TokensTotal, c.Page, c.Pages = id.layerFirst, id.tokenFirst, id.tokensTotal, id.page, id.pages
	for _, f := range c.texts() {
		*f.value = m.optional(f.key)
	}
	for key, value := range m.m {
		if name, is := strings.CutPrefix(key, fidelityPrefix); is {
			if c.Fidelity == nil {
				c.Fidelity = map[string]string{}
			}
			c.Fidelity[name] = value
			delete(m.m, key)
		}
	}
	c.Extra = m.rest()
	if c.Ratio, err = strconv.ParseFloat(ratio, 64); err != nil {
		return "", false, refuse(CodeBadMetadata, `metadata "ratio"`, quote(ratio), "a finite number from 0")
	}
	if err := checkRatio(c.Ratio, quote(ratio)); err != nil {
		return "", false, err
	}
	if c.DType, err = ParseDType(dtype); err == nil && c.Coded != nil && c.DType.IsF8() {
		err = refuse(CodeBadDType, `metadata "dtype" of coded cores`, c.DType, "BF16, F16 or F32")
	}
	return checksum, packed, err
}

func (c *Cores) readTensors(in *container, packed bool, lim Limits) error {
	k, err := in.need("k")
	if err != nil {
		return err
	}
	elem := c.DType.element()
	if c.Coded != nil {
		elem = elemU8
	}
	if err := k.wantElement(elem); err != nil {
		return err
	}
	if c.Tokens == 0 {
		return c.empty(k)
	}
	if c.Tokens > lim.MaxTokens {
		return refuse(CodeTooLarge, `metadata "tokens"`, c.Tokens, fmt.Sprintf("at most %d", lim.MaxTokens))
	}
	read := c.readPadded
	if packed {
		read = c.readPacked
	}
	if err := read(in, k, lim); err != nil {
		return err
	}
	if c.Coded != nil {
		if err := c.readCoded(in, k, lim); err != nil {
			return err
		}
		return c.readRest(in)
	}
	c.K = k.data
	if c.V, err = in.exact("v", c.DType.element(), k.shape...); err != nil {
		return err
	}
	for _, t := range []struct {
		name string
		elem element
		to   *[]byte
	}{{"counts", elemI32, &c.Counts}, {"bias", elemF32, &c.Bias}, {"positions", elemF32, &c.Positions}} {
		if *t.to, err = in.exact(t.name, t.elem, k.shape[:len(k.shape)-1]...); err != nil {
			return err
		}
	}
	if c.KScale, c.VScale, err = in.scales(c.DType, c.Layers, c.KVHeads); err != nil {
		return err
	}
	return c.readRest(in)
}

// readRest reads what is alike in all forms.
func (c *Cores) readRest(in *container) (err error) {
	if c.Assign, err = in.exactIfAny("assign", elemI32, c.Layers, c.KVHeads, c.Tokens); err != nil {
		return err
	}
	c.Dropped, err = in.exactIfAny("dropped", elemI32, c.Layers, c.KVHeads)
	return err
}

// readBits says whether the cores are coded.
func (c *Cores) readBits(m *metadata) {
	text, has := m.m[bitsKey]
	delete(m.m, bitsKey)
	interleaved := m.flag(interleavedKey, interleavedValue)
	switch {
	case !has && interleaved:
		m.fault(CodeBadMetadata, interleavedKey, quote(interleavedValue), "it only beside bits")
	case !has:
	case text == "4":
		c.Coded = &Coded{Bits: bits.Four, Interleaved: interleaved}
	case text == "8":
		c.Coded = &Coded{Bits: bits.Eight, Interleaved: interleaved}
	default:
		m.fault(CodeBadMetadata, bitsKey, quote(text), `"4", "8", or nothing`)
	}
}

// readPadded reads the sizes of the padded form off k.
func (c *Cores) readPadded(_ *container, k *tensor, lim Limits) error {
	if len(k.shape) != 4 {
		return k.badShape("[layers, kv_heads, cores, head_dim]")
	}
	c.Layers, c.KVHeads, c.Cores, c.HeadDim = k.shape[0], k.shape[1], k.shape[2], k.shape[3]
	if c.Cores == 0 {
		return c.empty(k)
	}
	return lim.sizes("k", c.Layers, c.KVHeads, c.Cores, c.HeadDim)
}

func (c *Cores) empty(k *tensor) error {
	return refuse(CodeEmpty, "the cores stand for no token", fmt.Sprintf("%d tokens, k of %v", c.Tokens, k.shape), "at least one token and one core")
}

// checkNumbers reads every element once, but for the counts and what hangs on them.
func (c *Cores) checkNumbers() error {
	for _, t := range []struct {
		name  string
		data  []byte
		dtype DType
		dim   int
	}{{"k", c.K, c.DType, c.HeadDim}, {"v", c.V, c.DType, c.HeadDim}, {"positions", c.Positions, F32, 1}} {
		if i := firstNotFinite(t.data, t.dtype); i >= 0 {
			layer, head, core := c.where(i / t.dim)
			return refuseNotFinite(t.name, t.dtype, layer, head, "core", core, i%t.dim)
		}
	}
	if err := checkScales("k_scale", c.KScale, c.KVHeads); err != nil {
		return err
	}
	return checkScales("v_scale", c.VScale, c.KVHeads)
}
