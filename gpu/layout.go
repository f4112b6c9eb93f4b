package gpu

import (
	"unsafe"

	"github.com/semproxy/semproxy/gpu/cuda"
)

// chunk, tile, job, batch and attend are the structures of kernels/job.h and kernels/attention.h, field by field.

type chunk struct{ lo, hi, sim, ld int32 }

type tile struct{ chunk, first, rows, _ int32 }

type job struct {
	// In.
	k, v             cuda.Pointer
	kscale, vscale   cuda.Pointer
	positions        cuda.Pointer
	cos, sin         cuda.Pointer
	freq             cuda.Pointer
	baseCos, baseSin cuda.Pointer
	chunks, tiles    cuda.Pointer
	chunkOf          cuda.Pointer
	age, dear        cuda.Pointer
	keep, q, teach   cuda.Pointer
	// Between kernels.
	norm, sums, mean    cuda.Pointer
	softmax, looks      cuda.Pointer
	meanLook            cuda.Pointer
	want, rest, solved  cuda.Pointer
	aims                cuda.Pointer
	score, single, sim  cuda.Pointer
	centrality          cuda.Pointer
	cand, candLen       cuda.Pointer
	totals, singles     cuda.Pointer
	quota               cuda.Pointer
	seed, label         cuda.Pointer
	start, member, keys cuda.Pointer
	// To the host after the first stage.
	threshold, cores, least cuda.Pointer
	// Out.
	outK, outV             cuda.Pointer
	outK8, outV8           cuda.Pointer
	outKScale, outVScale   cuda.Pointer
	outCounts              cuda.Pointer
	outPositions           cuda.Pointer
	outAssign              cuda.Pointer
	outSimilarity, outFail cuda.Pointer
	partial                cuda.Pointer

	layers, heads, tokens, dim           int32
	n, sinks, recent, groups, groupHeads int32
	chunksLen, tilesLen, simLen, padded  int32
	half, rows                           int32
	dtype, out8, flags, budget           int32
	slots, exact, lowest, fixed          int32
	launches, width, team                int32
	queries, qdtype, asks                int32
	pool, granule                        int32
}

// Flags of a job.
const (
	flagInterleaved = 1 << iota
	flagByPosition
	flagPlainMean
	flagRegular
	flagAcross
	flagWeighed
	flagDistinct
	flagSmallKeys
	flagNeedsMean
	flagNeedsScore
	flagAttended
	flagLooked
	flagImportant
	flagFit
	flagFold
)

// batch is the parameter of every kernel that works on pages.
type batch struct {
	jobs, first cuda.Pointer
	count, arg  int32
}

// attend is the parameter of the attention kernels.
type attend struct {
	q, k, v             cuda.Pointer
	bias, counts, table cuda.Pointer
	lens                cuda.Pointer
	kscale, vscale      cuda.Pointer
	part, out           cuda.Pointer
	rowB, rowT, rowH    int64

	batch, heads, per, dim, dtype, qdtype int32
	blockSize, tableStride                int32
	splits, splitLen, queryBlocks, len    int32
	plain                                 int32
	scale                                 float32
}

// sizes are what the kernel semproxy_layout reports when both sides agree.
func sizes() []int32 {
	var (
		j job
		b batch
		a attend
	)
	return []int32{
		int32(unsafe.Sizeof(j)), int32(unsafe.Sizeof(b)), int32(unsafe.Sizeof(a)), int32(unsafe.Sizeof(chunk{})), int32(unsafe.Sizeof(tile{})),
		int32(unsafe.Offsetof(j.layers)), int32(unsafe.Offsetof(j.threshold)), int32(unsafe.Offsetof(j.partial)), int32(unsafe.Offsetof(j.qdtype)),
		int32(unsafe.Offsetof(a.rowB)), int32(unsafe.Offsetof(a.scale)), int32(unsafe.Offsetof(b.arg)),
	}
}

// bytesOf views plain memory as bytes.
func bytesOf[T any](x *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(x)), unsafe.Sizeof(*x))
}

// view views bytes, aligned to T, as values.
func view[T any](b []byte) []T {
	var x T
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(x)))
}

func viewBytes[T any](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(x[0])))
}
