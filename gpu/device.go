package gpu

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/semproxy/semproxy/gpu/cuda"
	"github.com/semproxy/semproxy/gpu/kernels"
)

// Kernels, by their place in kernelNames.
const (
	kernelSimilar = iota
	kernelMean
	kernelScore
	kernelSelect
	kernelOrder
	kernelCount
	kernelSettle
	kernelQuota
	kernelAssign
	kernelFill
	kernelRank
	kernelMerge
	kernelReduce
	kernelNarrow
	kernelSoftmax
	kernelLooks
	kernelMeanLook
	kernelAim
	kernelKeys
	kernelSolve
	kernelFit
	kernelFold
	kernelAttend
	kernelCombine
	kernelLayout
	kernelsLen
)

var kernelNames = [kernelsLen]string{
	"similar", "mean", "score", "select", "order", "count", "settle", "quota", "assign", "fill", "rank", "merge", "reduce", "narrow", "softmax", "looks",
	"meanlook", "aim", "keys", "solve", "fit", "fold",
	"attend", "combine", "layout",
}

// threads of a block, as the kernels are compiled for them.
var kernelThreads = [kernelsLen]int{
	kernelSimilar: 256, kernelMean: 256, kernelScore: 256, kernelSelect: 256, kernelOrder: 256, kernelCount: 128, kernelSettle: 128,
	kernelQuota: 128, kernelAssign: 128, kernelFill: 256, kernelRank: 256, kernelMerge: 128, kernelReduce: 256, kernelNarrow: 256, kernelSoftmax: 128, kernelLooks: 128,
	kernelMeanLook: 256, kernelAim: 128, kernelKeys: 128, kernelSolve: 128, kernelFit: 128, kernelFold: 128,
	kernelAttend: 128, kernelCombine: 128, kernelLayout: 32,
}

const (
	countWarps   = 4   // chunks of a block of the count and assign kernels
	mergeThreads = 128 // of the merge kernel, whose teams are of 1 to 16
)

// device is a context with the kernels loaded and the slots allocated. All methods are called on its executor's thread.
type device struct {
	info     cuda.Info
	ctx      *cuda.Context
	module   cuda.Module
	function [kernelsLen]cuda.Function
	slots    []*slot
}

// openDevice makes the device's context current on this thread, loads the kernels and allocates memory, budget bytes of the
// device in all.
func openDevice(driver *cuda.Driver, info cuda.Info, budget int) (d *device, err error) {
	if err := info.Usable(); err != nil {
		return nil, err
	}
	ctx, err := driver.NewContext(info.Index)
	if err != nil {
		return nil, err
	}
	d = &device{info: info, ctx: ctx}
	defer func() {
		if err != nil {
			free := d.close
			if lost(err) {
				free = d.ctx.Reset // a lost context can only be destroyed
			}
			err = errors.Join(err, free())
			d = nil
		}
	}()
	if d.module, err = ctx.Load(kernels.PTX()); err != nil {
		return d, fmt.Errorf("load the kernels: %w", err)
	}
	for i, name := range kernelNames {
		if d.function[i], err = ctx.Function(d.module, "semproxy_"+name, d.mostShared(i)); err != nil {
			return d, err
		}
	}
	per := budget / slots
	for range slots {
		s := &slot{device: d}
		d.slots = append(d.slots, s)
		if err = d.allocate(s, per); err != nil {
			return d, fmt.Errorf("allocate %d MiB on %s: %w", budget>>20, info.Name, err)
		}
	}
	return d, d.check()
}

// lost reports whether the device's context is no longer of use.
func lost(err error) bool {
	var code *cuda.Error
	return errors.As(err, &code) && code.Lost()
}

// mostShared is the shared memory that launches of a kernel may ask for.
func (d *device) mostShared(kernel int) int {
	switch kernel {
	case kernelSimilar, kernelAttend, kernelSoftmax, kernelLooks, kernelKeys, kernelSolve, kernelFit:
		return d.info.SharedMemory
	}
	return 0
}

// allocate gives a slot a quarter of its memory for what comes in, a quarter for what goes out and the rest for what is in
// between. What comes in and goes out has as much pinned memory of the host.
func (d *device) allocate(s *slot, budget int) (err error) {
	for _, x := range []struct {
		a      *arena
		size   int
		pinned bool
	}{{&s.in, budget / 4, true}, {&s.out, budget / 4, true}, {&s.work, budget / 2, false}} {
		x.a.size = x.size &^ (alignment - 1)
		if x.a.base, err = d.ctx.Alloc(x.a.size); err != nil {
			return err
		}
		if x.pinned {
			if x.a.host, err = d.ctx.HostAlloc(x.a.size); err != nil {
				return err
			}
		}
	}
	if s.stream, err = d.ctx.NewStream(); err != nil {
		return err
	}
	for i := range s.events {
		if s.events[i], err = d.ctx.NewEvent(); err != nil {
			return err
		}
	}
	s.reset()
	return nil
}

// check holds the layout of the structures against the kernels'.
func (d *device) check() error {
	s := d.slots[0]
	at := s.out.base
	if err := d.launch(s, kernelLayout, 1, 0, bytesOf(&at)); err != nil {
		return err
	}
	want := sizes()
	if err := d.ctx.CopyOut(s.out.host[:4*len(want)], at, s.stream); err != nil {
		return err
	}
	if err := d.ctx.Wait(s.stream); err != nil {
		return err
	}
	for i, got := range view[int32](s.out.host[:4*len(want)]) {
		if got != want[i] {
			return fmt.Errorf("the kernels lay out structure %d with %d, this program with %d", i, got, want[i])
		}
	}
	return nil
}

// launch runs a kernel on a slot's stream.
func (d *device) launch(s *slot, kernel, blocks, shared int, param []byte) error {
	return d.ctx.Launch(d.function[kernel], blocks, kernelThreads[kernel], shared, s.stream, param)
}

// close frees everything. No slot is in use.
func (d *device) close() error {
	var all []error
	for _, s := range d.slots {
		for _, a := range []*arena{&s.in, &s.work, &s.out} {
			if a.base != 0 {
				all = append(all, d.ctx.Free(a.base))
			}
			if a.host != nil {
				all = append(all, d.ctx.HostFree(a.host))
			}
		}
		for _, e := range s.events {
			if e != 0 {
				all = append(all, d.ctx.FreeEvent(e))
			}
		}
		if s.stream != 0 {
			all = append(all, d.ctx.FreeStream(s.stream))
		}
	}
	if d.module != 0 {
		all = append(all, d.ctx.Unload(d.module))
	}
	return errors.Join(append(all, d.ctx.Release())...)
}

// similarShared is the shared memory of the similarity kernel for a page.
func similarShared(dim, longest int) int {
	rows := 2 * tileRows
	switch {
	case longest <= 64:
		rows = 64
	case longest <= 96:
		rows = 96
	}
	return rows * (dim + 4) * 4
}

func attendShared(dim int) int {
	return 4 * (attendQueries*dim + attendQueries*attendKeys + attendQueries + attendKeys*(dim+4))
}

// fitShared is the shared memory of the kernels that fit cores: queries, weights and keys, or the system with its sums.
func fitShared(dim int) int {
	return max(4*(attendQueries*dim+teachers*attendKeys+attendKeys*(dim+4)), 8*(teachers*(teachers+1)+4))
}

// keysShared is the shared memory of the kernel that fits keys: queries, their logits, what is lacking, and keys.
func keysShared(dim int) int {
	return 4 * (attendQueries*dim + attendQueries*attendKeys + teachers*attendKeys + attendKeys*(dim+4))
}

// supports reports whether the device has the shared memory for a page.
func (d *device) supports(t *task) bool {
	most := 0
	if t.plan != nil {
		most = similarShared(t.in.Dim, t.plan.longest)
	}
	if t.fits() {
		most = max(most, fitShared(t.in.Dim), keysShared(t.in.Dim))
	}
	if t.full || t.got || t.looks() || t.fits() {
		most = max(most, attendShared(t.in.Dim))
	}
	return most <= d.info.SharedMemory
}

// attentionKinds of the attention kernels.
const (
	attendQueries = 16 // of a block
	attendKeys    = 64 // of a tile
	teachers      = 64 // of a KV head, at most
	aimShared     = 8 * teachers * (teachers + 1)
	foldShared    = 8*teachers + 4*maxDim
)

// blocksOf is the number of blocks that the queries of a KV head take.
func blocksOf(queries int) int { return (queries + attendQueries - 1) / attendQueries }

// splits is into how many runs the keys of a head are cut, so that blocks of heads fill the device four times.
func splits(blocks, keys, multiprocessors int) int {
	return max(min((4*multiprocessors+blocks-1)/blocks, (keys+attendKeys-1)/attendKeys), 1)
}

const selectedBytes = int(unsafe.Sizeof(struct {
	hist        [256]int32
	warps       [8]int32
	rest, digit int32
}{})) + 16
