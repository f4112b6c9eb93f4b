package page

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/semproxy/semproxy/transport/page/bits"
)

// Coded are keys and values in few bits an element, which is what is on the wire in place of K and V. Rows are those of K: one
// for each entry. docs/reference/wire-format.md says what they stand for.
type Coded struct {
	Bits           int    // 4 or 8
	K, V           []byte // U8 [entries, head_dim*Bits/8]
	KScale, VScale []byte // BF16 [entries], at least 0
	KMean          []byte // BF16 [layers, kv_heads, head_dim], added to the keys; nil: nothing
	Frequencies    []byte // F32 [pairs], by which KMean rotates to each key's position; nil: not at all
	Interleaved    bool   // which dimensions are pairs, as in Rope
	// KFirst and VFirst are the first entries of each head as they were, in the cores' DType: [layers, kv_heads, n, head_dim],
	// zeros where a head has fewer. Attention rests on the first tokens of a text; a fault there is felt everywhere. nil: none.
	KFirst, VFirst []byte

	k, v []byte // what Code makes K and V of
}

// CodesVersion names what Code makes of given cores. It is part of stored objects' keys: raise it when that changes.
const CodesVersion = 1

const (
	bitsKey          = "bits"
	interleavedKey   = "interleaved"
	interleavedValue = "true"
)

var codedTensors = []string{"slots", "k", "v", "k_scale", "v_scale", "k_mean", "k_first", "v_first", "frequencies", "counts", "bias", "positions", "assign", "dropped"}

// Code writes K and V in few bits: it fills coded, reusing its memory, and sets K and V to what a reader will find, so that
// what is lost can be measured; they are coded's memory then. frequencies are those of the model's RoPE, radians per position
// of each pair of dimensions; without them the keys' mean is taken as it is. It is false, and the cores are as they were, when the cores cannot be written so: they are FP8, their head_dim is odd or over 1024, a count of bits
// is not one of ours, or numbers are too large.
func (c *Cores) Code(bit int, frequencies []float32, interleaved bool, coded *Coded) bool {
	if !bits.Valid(bit) || c.DType.IsF8() || c.DType.Size() == 0 || c.HeadDim%2 != 0 || c.HeadDim > bits.MaxDim || 2*len(frequencies) > c.HeadDim {
		return false
	}
	rows, row := len(c.Counts)/4, c.HeadDim*c.DType.Size()
	size := bits.RowBytes(c.HeadDim, bit)
	coded.Bits, coded.Interleaved = bit, false
	coded.K, coded.V = resize(coded.K, rows*size), resize(coded.V, rows*size)
	coded.KScale, coded.VScale = resize(coded.KScale, 2*rows), resize(coded.VScale, 2*rows)
	coded.KMean, coded.Frequencies = coded.KMean[:0], coded.Frequencies[:0]
	coded.KFirst, coded.VFirst = c.firstRows(coded.KFirst[:0], c.K), c.firstRows(coded.VFirst[:0], c.V)
	e := newCoder(c, bit, bits.Carrier{Frequencies: frequencies, Interleaved: interleaved})
	carried := false
	for first, n := range c.spans {
		used := n
		for c.Slots == nil && used > 0 && int32At(c.Counts, first+used-1) == 0 {
			used--
		}
		if used > 0 && e.carrier.Fit(c.HeadDim, used, func(i int) ([]float32, []bits.Turn) {
			widenRow(e.x, c.K[(first+i)*row:], c.DType)
			return e.x, e.turns(first+i, false)
		}) {
			carried = true
		}
		for _, m := range e.carrier.Mean {
			coded.KMean = binary.LittleEndian.AppendUint16(coded.KMean, uint16(math.Float32bits(m)>>16))
		}
		for i := first; i < first+n; i++ {
			if !e.encode(coded.K[i*size:(i+1)*size], coded.KScale[2*i:], c.K[i*row:(i+1)*row], i, true, i < first+used) ||
				!e.encode(coded.V[i*size:(i+1)*size], coded.VScale[2*i:], c.V[i*row:(i+1)*row], i, false, i < first+used) {
				return false
			}
		}
	}
	if carried {
		for _, f := range frequencies {
			coded.Frequencies = binary.LittleEndian.AppendUint32(coded.Frequencies, math.Float32bits(f))
		}
		coded.Interleaved = interleaved && len(frequencies) > 0
	} else {
		coded.KMean = nil
	}
	if len(coded.Frequencies) == 0 {
		coded.Frequencies = nil
	}
	coded.k, coded.v = resize(coded.k, rows*row), resize(coded.v, rows*row)
	if !coded.decode(c, coded.k, coded.v) {
		return false
	}
	c.K, c.V, c.Coded = coded.k, coded.v, coded
	return true
}

// exactFirst is how many entries of a head Code keeps as they are: a policy's sinks stand first.
const exactFirst = 4

// firstRows appends the first entries of every head in k, which is K or V.
func (c *Cores) firstRows(dst, k []byte) []byte {
	row := c.HeadDim * c.DType.Size()
	for first, n := range c.spans {
		n = min(n, exactFirst)
		dst = append(dst, k[first*row:(first+n)*row]...)
		dst = append(dst, make([]byte, (min(exactFirst, c.Cores)-n)*row)...)
	}
	return dst
}

// first is how many entries of a head are kept as they were.
func (x *Coded) first(c *Cores) int {
	return len(x.KFirst) / (c.Layers * c.KVHeads * c.HeadDim * c.DType.Size())
}

// coder is the scratch of one goroutine.
type coder struct {
	c       *Cores
	rows    bits.Coder
	carrier bits.Carrier
	x, mean []float32
	turn    []bits.Turn // of one entry, or of the entries of any head where all heads have the same positions
	shared  bool
}

const sharedTurns = 1 << 20 // at most, 16 bytes each

func newCoder(c *Cores, bit int, carrier bits.Carrier) *coder {
	d := &coder{c: c, rows: bits.Coder{Dim: c.HeadDim, Bits: bit}, x: make([]float32, c.HeadDim), mean: make([]float32, c.HeadDim), carrier: carrier}
	pairs := len(carrier.Frequencies)
	d.shared = pairs > 0 && c.Layers*c.KVHeads >= 4 && c.Cores <= sharedTurns/pairs && c.together()
	if !d.shared {
		d.turn = make([]bits.Turn, pairs)
		return d
	}
	d.turn = make([]bits.Turn, c.Cores*pairs)
	for i := range c.Cores {
		carrier.Turns(d.turn[i*pairs:(i+1)*pairs], float32At(c.Positions, i), false)
	}
	return d
}

// turns are those of an entry's position: of all pairs, or of those that have a mean.
func (e *coder) turns(entry int, used bool) []bits.Turn {
	if e.shared {
		pairs := len(e.carrier.Frequencies)
		at := entry % e.c.Cores * pairs
		return e.turn[at : at+pairs]
	}
	e.carrier.Turns(e.turn, float32At(e.c.Positions, entry), used)
	return e.turn
}

// encode writes one row, a key or a value of an entry; padding is zeros.
func (e *coder) encode(codes, scale, from []byte, entry int, key, used bool) bool {
	if !used {
		clear(codes)
		binary.LittleEndian.PutUint16(scale, 0)
		return true
	}
	widenRow(e.x, from, e.c.DType)
	if key {
		e.carrier.Rotate(e.mean, e.turns(entry, true))
		for i, m := range e.mean {
			e.x[i] -= m
		}
	}
	s := e.rows.Encode(codes, e.x)
	binary.LittleEndian.PutUint16(scale, s)
	return s < infiniteBF16
}

const infiniteBF16 = 0x7f80

// decode writes what the codes stand for into k and v, in the cores' DType. It is false where a number is not finite there.
func (x *Coded) decode(c *Cores, k, v []byte) bool {
	size, row := bits.RowBytes(c.HeadDim, x.Bits), c.HeadDim*c.DType.Size()
	carrier := bits.Carrier{Interleaved: x.Interleaved, Mean: make([]float32, c.HeadDim)}
	for i := range len(x.Frequencies) / 4 {
		carrier.Frequencies = append(carrier.Frequencies, float32At(x.Frequencies, i))
	}
	d := newCoder(c, x.Bits, carrier)
	head := 0
	for first, n := range c.spans {
		if x.KMean != nil {
			for i := range d.carrier.Mean {
				d.carrier.Mean[i] = bf16At(x.KMean, head*c.HeadDim+i)
			}
		}
		head++
		exact := min(n, x.first(c))
		from := (head - 1) * x.first(c) * row
		copy(k[first*row:(first+exact)*row], x.KFirst[from:])
		copy(v[first*row:(first+exact)*row], x.VFirst[from:])
		for i := first + exact; i < first+n; i++ {
			if int32At(c.Counts, i) == 0 { // padding
				clear(k[i*row : (i+1)*row])
				clear(v[i*row : (i+1)*row])
				continue
			}
			d.rows.Decode(d.x, x.K[i*size:(i+1)*size], binary.LittleEndian.Uint16(x.KScale[2*i:]))
			if x.KMean != nil {
				d.carrier.Rotate(d.mean, d.turns(i, true))
				for j, m := range d.mean {
					d.x[j] += m
				}
			}
			narrowRow(k[i*row:(i+1)*row], d.x, c.DType)
			d.rows.Decode(d.x, x.V[i*size:(i+1)*size], binary.LittleEndian.Uint16(x.VScale[2*i:]))
			narrowRow(v[i*row:(i+1)*row], d.x, c.DType)
		}
	}
	return firstNotFinite(k, c.DType) < 0 && firstNotFinite(v, c.DType) < 0
}

// check holds the scales, the mean and the frequencies against the format.
func (x *Coded) check(c *Cores) error {
	for _, t := range []struct {
		name string
		data []byte
	}{{"k_scale", x.KScale}, {"v_scale", x.VScale}} {
		for i := range len(t.data) / 2 {
			if s := binary.LittleEndian.Uint16(t.data[2*i:]); s >= infiniteBF16 {
				layer, head, core := c.where(i)
				return refuse(CodeBadScale, fmt.Sprintf("tensor %q has an unusable scale at layer %d, head %d, core %d", t.name, layer, head, core),
					bf16At(t.data, i), "finite and at least 0")
			}
		}
	}
	if i := firstNotFinite(x.KMean, BF16); i >= 0 {
		plane := i / c.HeadDim
		return refuseNotFinite("k_mean", BF16, plane/c.KVHeads, plane%c.KVHeads, "row", 0, i%c.HeadDim)
	}
	for i := range len(x.Frequencies) / 4 {
		if f := float64(float32At(x.Frequencies, i)); !(f >= 0 && f <= 16) {
			return refuse(CodeBadRope, fmt.Sprintf(`tensor "frequencies" is unusable for pair %d`, i), f, "from 0 to 16 radians per position")
		}
	}
	return nil
}

func bf16At(b []byte, i int) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
}

func resize(b []byte, n int) []byte { return slices.Grow(b[:0], n)[:n] }
