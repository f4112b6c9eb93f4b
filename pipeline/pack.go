package pipeline

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/semproxy/semproxy/compress"
)

// tensors are those of a reply that are not the compressor's own memory: little-endian, in memory that is reused.
type tensors struct {
	k, v, slots             []byte // of the packed form only
	counts, bias, positions []byte
	assign, dropped         []byte
	kScale, vScale          []byte
}

// wasteful reports whether more than one entry in 16 of a padded result is padding.
func wasteful(res *compress.Result) bool {
	entries := 0
	for _, n := range res.Slots {
		entries += int(n)
	}
	return entries*16 < len(res.Slots)*res.Cores*15
}

// pack leaves the padding of a result out: head by head, the rows in use follow each other.
func pack(dst *tensors, res *compress.Result) {
	row := len(res.K) / len(res.Counts)
	dst.k, dst.v = dst.k[:0], dst.v[:0]
	dst.counts, dst.bias, dst.positions = dst.counts[:0], dst.bias[:0], dst.positions[:0]
	for plane, n := range res.Slots {
		from := plane * res.Cores
		to := from + int(n)
		dst.k = append(dst.k, res.K[from*row:to*row]...)
		dst.v = append(dst.v, res.V[from*row:to*row]...)
		dst.counts = appendInts(dst.counts, res.Counts[from:to])
		dst.bias = appendFloats(dst.bias, res.Bias[from:to])
		dst.positions = appendFloats(dst.positions, res.Positions[from:to])
	}
	dst.slots = appendInts(dst.slots[:0], res.Slots)
}

// pad keeps the padding of a result. K and V need no other memory then.
func pad(dst *tensors, res *compress.Result) {
	dst.counts = appendInts(dst.counts[:0], res.Counts)
	dst.bias = appendFloats(dst.bias[:0], res.Bias)
	dst.positions = appendFloats(dst.positions[:0], res.Positions)
}

// meanDropped is the number of tokens that no core stands for, averaged over layers and heads.
func meanDropped(res *compress.Result) float64 {
	sum := 0
	for _, n := range res.Dropped {
		sum += int(n)
	}
	return float64(sum) / float64(max(len(res.Dropped), 1))
}

func appendInts(dst []byte, values []int32) []byte {
	dst = slices.Grow(dst, 4*len(values))
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return dst
}

func appendFloats(dst []byte, values []float32) []byte {
	dst = slices.Grow(dst, 4*len(values))
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}
