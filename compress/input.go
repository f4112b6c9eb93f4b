package compress

import "github.com/semproxy/semproxy/codes"

// Input is one page. The slices are read, never written or kept after the call that takes them.
type Input struct {
	DType                      DType
	Layers, Heads, Tokens, Dim int    // K and V are [Layers, Heads, Tokens, Dim]; Heads are KV heads
	K, V                       []byte // little-endian elements of DType; keys after RoPE
	KScale, VScale             []float32
	Positions                  []int32 // [Tokens], strictly increasing; the angles that RoPE used
	Boundary                   []byte  // [Tokens], non-zero where a delimiter ends a clause; nil: chunks have the maximal length
	Protect                    []byte  // [Tokens], non-zero where a token must not be merged; or nil
	Rope                       Rope

	// Before and Behind are how many tokens of the sequence come before the page and after it. The sinks are the first tokens of the
	// sequence, the recent tokens its last; queries are turned to positions behind it.
	Before, Behind int

	Q       []byte // [Layers, QHeads, Window, Dim], the last queries after RoPE; nil: no attention error is measured
	QDType  DType
	QHeads  int // a multiple of Heads
	QWindow int // queries per head
	// QPositions, [QWindow], are the positions that the queries of a head were asked at; nil: those of the last QWindow tokens.
	QPositions []int32

	// Importance, [Layers, Heads, Tokens], says how much each token is needed, from 0 on, in a scale of the sender's choice; or
	// nil. Options.Attention then goes by it and not by the queries.
	Importance []float32
}

// end is the position behind the sequence's last token.
func (in *Input) end() float64 { return float64(in.Positions[in.Tokens-1]) + 1 + float64(in.Behind) }

// planes is the number of (layer, head) pairs.
func (in *Input) planes() int { return in.Layers * in.Heads }

// rowBytes is the size of one key.
func (in *Input) rowBytes() int { return in.Dim * in.DType.Size() }

// row returns the bytes of token i of plane p in x, which is K or V.
func (in *Input) row(x []byte, p, i int) []byte {
	rb := in.rowBytes()
	o := (p*in.Tokens + i) * rb
	return x[o : o+rb : o+rb]
}

// rows returns the bytes of n tokens from i on.
func (in *Input) rows(x []byte, p, i, n int) []byte {
	rb := in.rowBytes()
	o := (p*in.Tokens + i) * rb
	return x[o : o+n*rb : o+n*rb]
}

func scaleOf(s []float32, plane int) float32 {
	if s == nil {
		return 1
	}
	return s[plane]
}

// maxElements bounds what Check multiplies, so that products of the shape cannot overflow.
const maxElements = 1 << 40

// maxTokens is what fits the keys that seeds are sorted by.
const maxTokens = 1 << 20

// Check refuses shapes that do not fit their buffers. It does not look at the elements: the wire decoder has refused NaN
// and Inf, and a caller without it gets garbage cores from garbage keys but never a panic.
func (in *Input) Check() error {
	elems := 1
	for _, n := range [...]int{in.Layers, in.Heads, in.Tokens, in.Dim} {
		if n <= 0 || elems > maxElements/n {
			return badInput(codes.PageBadShape, "K of [layers, kv_heads, tokens, head_dim] = [%d, %d, %d, %d] is not a usable shape",
				in.Layers, in.Heads, in.Tokens, in.Dim)
		}
		elems *= n
	}
	if in.Before < 0 || in.Behind < 0 {
		return badInput(codes.PageBadShape, "%d tokens before the page and %d behind it are not possible", in.Before, in.Behind)
	}
	if in.Tokens > maxTokens {
		return badInput(codes.PageTooLarge, "a page has at most %d tokens, got %d", maxTokens, in.Tokens)
	}
	if in.DType >= dtypes {
		return badInput(codes.PageBadDType, "element type %s is not supported", in.DType)
	}
	want := elems * in.DType.Size()
	if len(in.K) != want || len(in.V) != want {
		return badInput(codes.PageBadShape, "K and V need %d bytes each, got %d and %d", want, len(in.K), len(in.V))
	}
	if fp8 := in.DType.FP8(); fp8 != (in.KScale != nil) || fp8 != (in.VScale != nil) {
		return badInput(codes.PageBadScale, "K and V of %s: scales are for FP8 and FP8 needs them", in.DType)
	}
	if in.DType.FP8() && (len(in.KScale) != in.planes() || len(in.VScale) != in.planes()) {
		return badInput(codes.PageBadScale, "FP8 needs %d scales for K and for V, got %d and %d", in.planes(), len(in.KScale), len(in.VScale))
	}
	if len(in.Positions) != in.Tokens {
		return badInput(codes.PageBadShape, "%d tokens need as many positions, got %d", in.Tokens, len(in.Positions))
	}
	for i := 1; i < len(in.Positions); i++ {
		if in.Positions[i] <= in.Positions[i-1] {
			return badInput(codes.PageBadPositions, "positions must increase, but token %d is at %d after %d", i, in.Positions[i], in.Positions[i-1])
		}
	}
	if (in.Boundary != nil && len(in.Boundary) != in.Tokens) || (in.Protect != nil && len(in.Protect) != in.Tokens) {
		return badInput(codes.PageBadShape, "boundary and protect need %d entries, got %d and %d", in.Tokens, len(in.Boundary), len(in.Protect))
	}
	if in.Rope.Dim > in.Dim {
		return badInput(codes.PageBadRope, "rotary_dim %d exceeds head_dim %d", in.Rope.Dim, in.Dim)
	}
	if in.Importance != nil && len(in.Importance) != in.planes()*in.Tokens {
		return badInput(codes.PageBadShape, "importance needs %d entries, got %d", in.planes()*in.Tokens, len(in.Importance))
	}
	return in.checkQ()
}

func (in *Input) checkQ() error {
	if in.Q == nil {
		return nil
	}
	if in.QHeads <= 0 || in.QHeads%in.Heads != 0 || in.QWindow <= 0 || in.QHeads > maxElements/in.QWindow || in.QDType >= dtypes {
		return badInput(codes.PageBadShape, "q of %d heads and %d queries in %s does not fit %d kv heads", in.QHeads, in.QWindow, in.QDType, in.Heads)
	}
	if in.QPositions != nil && len(in.QPositions) != in.QWindow {
		return badInput(codes.PageBadShape, "q has %d queries a head and %d positions", in.QWindow, len(in.QPositions))
	}
	if want := in.Layers * in.QHeads * in.QWindow * in.Dim * in.QDType.Size(); len(in.Q) != want {
		return badInput(codes.PageBadShape, "q needs %d bytes, got %d", want, len(in.Q))
	}
	return nil
}
