package page

// Limits bounds what a decoder accepts. They are compared with a blob's own claims before anything is allocated.
// A field that is zero or negative takes its value from DefaultLimits.
type Limits struct {
	MaxBytes   int64 // the whole blob
	MaxHeader  int   // bytes of the JSON header
	MaxTokens  int   // tokens of a page, queries of its window, cores of a head
	MaxLayers  int
	MaxHeads   int // KV heads, and query heads
	MaxHeadDim int
	MaxTensors int // tensors of a blob
}

// DefaultLimits admits the largest page that a person compresses from a file: 1 GiB, a million tokens.
// A server that faces tenants sets MaxBytes much lower.
func DefaultLimits() Limits {
	return Limits{
		MaxBytes:   1 << 30,
		MaxHeader:  64 << 10,
		MaxTokens:  1 << 20,
		MaxLayers:  512,
		MaxHeads:   1024,
		MaxHeadDim: 1024,
		MaxTensors: 32,
	}
}

func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	if l.MaxBytes <= 0 {
		l.MaxBytes = d.MaxBytes
	}
	for _, f := range []struct{ set, def *int }{
		{&l.MaxHeader, &d.MaxHeader}, {&l.MaxTokens, &d.MaxTokens}, {&l.MaxLayers, &d.MaxLayers},
		{&l.MaxHeads, &d.MaxHeads}, {&l.MaxHeadDim, &d.MaxHeadDim}, {&l.MaxTensors, &d.MaxTensors},
	} {
		if *f.set <= 0 {
			*f.set = *f.def
		}
	}
	return l
}

// Bounds of the metadata, the same for every caller: they only keep a header readable.
const (
	maxRank       = 8    // dimensions of a tensor
	maxMetaKeys   = 64   // metadata entries
	maxKeyBytes   = 128  // a metadata key, a tensor's name
	maxValueBytes = 2048 // a metadata value
	maxIDBytes    = 256  // model, sequence, layout
)
