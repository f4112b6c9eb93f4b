package gpu

import (
	"fmt"
	"runtime"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// DecodeShape is one step of decoding: a query per query head of every sequence, over a paged cache.
type DecodeShape struct {
	Batch, KVHeads, QHeads, Dim int
	Tokens                      int // entries of the cache per sequence and head, at most
	BlockSize                   int // entries of a block of the cache
	DType                       compress.DType
}

// Check refuses what the kernel does not take.
func (s *DecodeShape) Check() error {
	if s.Batch < 1 || s.KVHeads < 1 || s.QHeads < s.KVHeads || s.QHeads%s.KVHeads != 0 || s.Tokens < 1 || s.BlockSize < 1 ||
		s.Dim < 8 || s.Dim > maxDim || s.Dim%8 != 0 || s.DType.FP8() {
		return fmt.Errorf("gpu: a decode step of %+v is not supported", *s)
	}
	return nil
}

func (s *DecodeShape) blocks() int { return (s.Tokens + s.BlockSize - 1) / s.BlockSize }

// bytes is what a step reads of K and V.
func (s *DecodeShape) bytes() int { return 2 * s.Batch * s.KVHeads * s.Tokens * s.Dim * s.DType.Size() }

// Cache is a paged cache in the host's memory. An entry of count 0 or bias -Inf is padding; without a bias, it is the logarithm
// of the count.
type Cache struct {
	K, V   []byte    // [blocks, block_size, kv_heads, dim]
	Bias   []float32 // [blocks, block_size, kv_heads], added to the logits; or nil
	Counts []int32   // the same shape, or nil
	Table  []int32   // [batch, blocks of a sequence]
	Lens   []int32   // [batch, kv_heads], entries in use
}

// Decode is proportional attention of one step on the device: the reference for adapters of engines. q is [batch, q_heads,
// dim] of the cache's type, and so is the result, in float32.
func Decode(opt Options, s DecodeShape, q []byte, c *Cache) (out []float32, err error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	err = withDevice(opt, func(l *lab) error {
		a := s.attend()
		a.q, a.k, a.v = l.put(q), l.put(c.K), l.put(c.V)
		a.bias, a.counts = l.put(viewBytes(c.Bias)), l.put(viewBytes(c.Counts))
		a.table, a.lens = l.put(viewBytes(c.Table)), l.put(viewBytes(c.Lens))
		n := s.Batch * s.QHeads * s.Dim
		l.place(&s, &a)
		q := &sequence{d: l.d, s: l.slot()}
		l.d.attend(q, &a)
		if l.do(q.err); l.err != nil {
			return l.err
		}
		host, err := l.d.ctx.HostAlloc(4 * n)
		if err != nil {
			return err
		}
		defer func() { l.do(l.d.ctx.HostFree(host)) }()
		l.do(l.d.ctx.CopyOut(host, a.out, l.slot().stream))
		l.do(l.d.ctx.Wait(l.slot().stream))
		out = append(out, view[float32](host)...)
		return l.err
	})
	return out, err
}

func (s *DecodeShape) attend() attend {
	return attend{
		batch: int32(s.Batch), heads: int32(s.KVHeads), per: int32(s.QHeads / s.KVHeads), dim: int32(s.Dim), dtype: int32(s.DType), qdtype: int32(s.DType),
		blockSize: int32(s.BlockSize), tableStride: int32(s.blocks()), len: int32(s.Tokens),
		rowB: int64(s.BlockSize * s.KVHeads), rowT: int64(s.KVHeads), rowH: 1,
	}
}

// lab is a device on a thread of its own, for measurements: what fails first is remembered.
type lab struct {
	d    *device
	held []cuda.Pointer
	err  error
}

// withDevice opens the device that the options name, and runs f on the thread that owns it.
func withDevice(opt Options, f func(l *lab) error) error {
	driver, err := cuda.Open(opt.Library)
	if err != nil {
		return err
	}
	devices, err := driver.Devices()
	if err != nil {
		return err
	}
	if opt.Device < 0 || opt.Device >= len(devices) {
		return fmt.Errorf("gpu: there is no device %d, the driver has %d", opt.Device, len(devices))
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		d, err := openDevice(driver, devices[opt.Device], MinMemory)
		if err != nil {
			done <- err
			return
		}
		l := &lab{d: d}
		err = f(l)
		l.free()
		l.do(d.close())
		if err == nil {
			err = l.err
		}
		done <- err
	}()
	return <-done
}

func (l *lab) slot() *slot { return l.d.slots[0] }

func (l *lab) do(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *lab) alloc(n int) cuda.Pointer {
	p, err := l.d.ctx.Alloc(max(n, 1))
	if err == nil {
		l.held = append(l.held, p)
	}
	l.do(err)
	return p
}

func (l *lab) free() {
	for _, p := range l.held {
		l.do(l.d.ctx.Free(p))
	}
	l.held = nil
}

// put copies b to the device; 0 when there is nothing.
func (l *lab) put(b []byte) cuda.Pointer {
	if len(b) == 0 {
		return 0
	}
	p := l.alloc(len(b))
	pinned := l.slot().in.host
	for at := 0; at < len(b) && l.err == nil; at += len(pinned) {
		n := copy(pinned, b[at:])
		l.do(l.d.ctx.CopyIn(p+cuda.Pointer(at), pinned[:n], l.slot().stream))
		l.do(l.d.ctx.Wait(l.slot().stream))
	}
	return p
}

// place allocates what a decode step writes.
func (l *lab) place(s *DecodeShape, a *attend) {
	n := splits(s.Batch*s.KVHeads*blocksOf(s.QHeads/s.KVHeads), s.Tokens, l.d.info.Multiprocessors)
	a.part = l.alloc(4 * s.Batch * s.QHeads * n * (s.Dim + 2))
	a.out = l.alloc(4 * s.Batch * s.QHeads * s.Dim)
}

// timed is the time of one call of f on the slot's stream, from repeat of them.
func (l *lab) timed(repeat int, f func()) time.Duration {
	f() // what happens once only is not measured
	l.do(l.d.ctx.Wait(l.slot().stream))
	start := time.Now()
	for range repeat {
		f()
	}
	l.do(l.d.ctx.Wait(l.slot().stream))
	return time.Since(start) / time.Duration(repeat)
}
