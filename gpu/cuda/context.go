//go:build !nogpu && linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"unsafe"
)

// Context is the primary context of one device, current on the thread that NewContext was called on. All methods are called
// on that thread.
type Context struct {
	d      *Driver
	device int32
	params *keep
}

const (
	schedBlocking        = 4
	primaryContextActive = 708
)

// NewContext makes the primary context of device index current on this thread, which the caller has locked.
func (d *Driver) NewContext(index int) (*Context, error) {
	c := &Context{d: d, params: newKeep()}
	if err := d.call(cuDeviceGet, uintptr(unsafe.Pointer(&c.device)), uintptr(index)); err != nil {
		return nil, err
	}
	// A thread that waits for the device sleeps: a sidecar must not keep a core busy. A context that is there already keeps its way.
	err := d.call(cuDevicePrimaryCtxSetFlags, uintptr(c.device), schedBlocking)
	if e := (*Error)(nil); errors.As(err, &e) && e.Code != primaryContextActive {
		return nil, err
	}
	var ctx uintptr
	if err := d.call(cuDevicePrimaryCtxRetain, uintptr(unsafe.Pointer(&ctx)), uintptr(c.device)); err != nil {
		return nil, err
	}
	return c, d.call(cuCtxSetCurrent, ctx)
}

// Release gives the context back. It is not used after.
func (c *Context) Release() error {
	c.params.pin.Unpin()
	err := c.d.call(cuCtxSetCurrent, 0)
	if e := c.d.call(cuDevicePrimaryCtxRelease, uintptr(c.device)); err == nil {
		err = e
	}
	return err
}

// Reset destroys the context with all that was allocated in it, and gives it back: what is left to do with a lost one.
func (c *Context) Reset() error {
	err := c.d.call(cuDevicePrimaryCtxReset, uintptr(c.device))
	if e := c.Release(); err == nil {
		err = e
	}
	return err
}

// MemInfo says how many bytes of the device's memory are free, and how many there are.
func (c *Context) MemInfo() (free, total uint64, err error) {
	err = c.d.call(cuMemGetInfo, uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return free, total, err
}

// Alloc allocates n bytes of the device's memory. Their contents are unspecified.
func (c *Context) Alloc(n int) (p Pointer, err error) {
	err = c.d.call(cuMemAlloc, uintptr(unsafe.Pointer(&p)), uintptr(n))
	return p, err
}

// Free frees what Alloc gave.
func (c *Context) Free(p Pointer) error { return c.d.call(cuMemFree, uintptr(p)) }

// HostAlloc allocates n bytes of pinned memory of the host, which copies can overlap with kernels from. Go's collector does not
// know of it.
func (c *Context) HostAlloc(n int) ([]byte, error) {
	var p *byte
	if err := c.d.call(cuMemHostAlloc, uintptr(unsafe.Pointer(&p)), uintptr(n), 0); err != nil {
		return nil, err
	}
	return unsafe.Slice(p, n), nil
}

// HostFree frees what HostAlloc gave.
func (c *Context) HostFree(b []byte) error {
	return c.d.call(cuMemFreeHost, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// CopyIn copies pinned memory to the device, after what s has been given before.
func (c *Context) CopyIn(to Pointer, from []byte, s Stream) error {
	return c.d.call(cuMemcpyHtoDAsync, uintptr(to), uintptr(unsafe.Pointer(unsafe.SliceData(from))), uintptr(len(from)), uintptr(s))
}

// CopyOut copies from the device to pinned memory, which is not read before s has been waited for.
func (c *Context) CopyOut(to []byte, from Pointer, s Stream) error {
	return c.d.call(cuMemcpyDtoHAsync, uintptr(unsafe.Pointer(unsafe.SliceData(to))), uintptr(from), uintptr(len(to)), uintptr(s))
}

// CopyWithin copies n bytes inside the device.
func (c *Context) CopyWithin(to, from Pointer, n int, s Stream) error {
	return c.d.call(cuMemcpyDtoDAsync, uintptr(to), uintptr(from), uintptr(n), uintptr(s))
}

// NewStream makes a stream that does not wait for the default one.
func (c *Context) NewStream() (s Stream, err error) {
	err = c.d.call(cuStreamCreate, uintptr(unsafe.Pointer(&s)), 1)
	return s, err
}

// FreeStream destroys a stream.
func (c *Context) FreeStream(s Stream) error { return c.d.call(cuStreamDestroy, uintptr(s)) }

// Wait waits for everything that s was given.
func (c *Context) Wait(s Stream) error { return c.d.call(cuStreamSynchronize, uintptr(s)) }

// NewEvent makes an event.
func (c *Context) NewEvent() (e Event, err error) {
	err = c.d.call(cuEventCreate, uintptr(unsafe.Pointer(&e)), 0)
	return e, err
}

// FreeEvent destroys an event.
func (c *Context) FreeEvent(e Event) error { return c.d.call(cuEventDestroy, uintptr(e)) }

// Record makes e happen when s has done what it was given before.
func (c *Context) Record(e Event, s Stream) error {
	return c.d.call(cuEventRecord, uintptr(e), uintptr(s))
}

// WaitEvent waits until e has happened.
func (c *Context) WaitEvent(e Event) error { return c.d.call(cuEventSynchronize, uintptr(e)) }

// Milliseconds is the time between two events that have happened.
func (c *Context) Milliseconds(from, to Event) (ms float32, err error) {
	err = c.d.call(cuEventElapsedTime, uintptr(unsafe.Pointer(&ms)), uintptr(from), uintptr(to))
	return ms, err
}

// Load compiles PTX, which ends with a zero byte, for the device.
func (c *Context) Load(ptx []byte) (m Module, err error) {
	if len(ptx) == 0 || ptx[len(ptx)-1] != 0 {
		return 0, fmt.Errorf("cuda: PTX must end with a zero byte")
	}
	err = c.d.call(cuModuleLoadData, uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(unsafe.SliceData(ptx))))
	return m, err
}

// Unload frees a module.
func (c *Context) Unload(m Module) error { return c.d.call(cuModuleUnload, uintptr(m)) }

// attributeDynamicShared raises the shared memory that launches of a function may ask for.
const attributeDynamicShared = 8

// Function finds a kernel and lets its launches have shared bytes of shared memory.
func (c *Context) Function(m Module, name string, shared int) (f Function, err error) {
	text := append([]byte(name), 0)
	if err := c.d.call(cuModuleGetFunction, uintptr(unsafe.Pointer(&f)), uintptr(m), uintptr(unsafe.Pointer(&text[0]))); err != nil {
		return 0, fmt.Errorf("kernel %s: %w", name, err)
	}
	if shared > 48<<10 {
		err = c.d.call(cuFuncSetAttribute, uintptr(f), attributeDynamicShared, uintptr(shared))
	}
	return f, err
}

// Launch runs a kernel that takes one parameter by value on blocks of threads.
func (c *Context) Launch(f Function, blocks, threads, shared int, s Stream, param []byte) error {
	if len(param) > maxParam {
		return fmt.Errorf("cuda: a parameter of %d bytes, at most %d", len(param), maxParam)
	}
	copy(c.params.param[:], param)
	return c.d.call(cuLaunchKernel, uintptr(f), uintptr(blocks), 1, 1, uintptr(threads), 1, 1, uintptr(shared), uintptr(s),
		uintptr(unsafe.Pointer(&c.params.list)), 0)
}
