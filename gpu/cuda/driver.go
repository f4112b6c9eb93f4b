//go:build !nogpu && linux && (amd64 || arm64)

package cuda

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The driver's functions. Those with a suffix are the second version of their interface.
const (
	cuInit = iota
	cuDriverGetVersion
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceTotalMem
	cuDeviceGetAttribute
	cuDevicePrimaryCtxSetFlags
	cuDevicePrimaryCtxRetain
	cuDevicePrimaryCtxRelease
	cuDevicePrimaryCtxReset
	cuCtxSetCurrent
	cuMemGetInfo
	cuMemAlloc
	cuMemFree
	cuMemHostAlloc
	cuMemFreeHost
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemcpyDtoDAsync
	cuStreamCreate
	cuStreamDestroy
	cuStreamSynchronize
	cuEventCreate
	cuEventDestroy
	cuEventRecord
	cuEventSynchronize
	cuEventElapsedTime
	cuModuleLoadData
	cuModuleUnload
	cuModuleGetFunction
	cuFuncSetAttribute
	cuLaunchKernel
	cuGetErrorName
	functions
)

var symbols = [functions]string{
	"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDeviceGetAttribute",
	"cuDevicePrimaryCtxSetFlags_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxReset_v2", "cuCtxSetCurrent", "cuMemGetInfo_v2", "cuMemAlloc_v2", "cuMemFree_v2",
	"cuMemHostAlloc", "cuMemFreeHost", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2", "cuStreamCreate", "cuStreamDestroy_v2",
	"cuStreamSynchronize", "cuEventCreate", "cuEventDestroy_v2", "cuEventRecord", "cuEventSynchronize", "cuEventElapsedTime",
	"cuModuleLoadData", "cuModuleUnload", "cuModuleGetFunction", "cuFuncSetAttribute", "cuLaunchKernel", "cuGetErrorName",
}

// Driver is a loaded driver. It is safe for concurrent use; it is never unloaded, since a driver keeps threads of its own.
type Driver struct {
	Path    string
	Version int // 12040 is CUDA 12.4
	lib     uintptr
	fn      [functions]uintptr
}

// libraries are the places where the driver is looked for when no path is given.
func libraries() []string {
	if p := os.Getenv("SEMPROXY_LIBCUDA"); p != "" {
		return []string{p}
	}
	return []string{"libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"}
}

var (
	loadMutex sync.Mutex
	loaded    = map[string]*Driver{}
)

// Open loads the driver at path; where path is empty, the one that $SEMPROXY_LIBCUDA names, else the loader's, else the one in
// /usr/local/nvidia/lib64. The error wraps ErrNoDriver or ErrOldDriver where that is the reason; a driver that was loaded but cannot
// be used is returned with it.
func Open(path string) (*Driver, error) {
	paths := libraries()
	if path != "" {
		paths = []string{path}
	}
	loadMutex.Lock()
	defer loadMutex.Unlock()
	var all []string
	for _, p := range paths {
		d := loaded[p]
		if d == nil {
			var err error
			if d, err = load(p); err != nil {
				all = append(all, err.Error())
				continue
			}
			loaded[p] = d
		}
		return d, d.start()
	}
	return nil, fmt.Errorf("%w: %s", ErrNoDriver, strings.Join(all, "; "))
}

func load(path string) (*Driver, error) {
	runtime.LockOSThread() // the reason of a failure belongs to the thread
	defer runtime.UnlockOSThread()
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	d := &Driver{Path: path, lib: lib}
	for i, name := range &symbols {
		if d.fn[i], err = purego.Dlsym(lib, name); err != nil {
			return nil, fmt.Errorf("%s has no %s: %w", path, name, err)
		}
	}
	return d, nil
}

func (d *Driver) start() error {
	if err := d.call(cuInit, 0); err != nil {
		return err
	}
	var version int32
	if err := d.call(cuDriverGetVersion, uintptr(unsafe.Pointer(&version))); err != nil {
		return err
	}
	d.Version = int(version)
	if d.Version < MinVersion {
		return fmt.Errorf("%w: %s offers CUDA %d.%d, %d.%d is needed", ErrOldDriver, d.Path,
			d.Version/1000, d.Version%1000/10, MinVersion/1000, MinVersion%1000/10)
	}
	return nil
}

// call calls a function of the driver. Pointers that are converted to uintptr in the call stay where they are during it.
//
//go:uintptrescapes
func (d *Driver) call(fn int, args ...uintptr) error {
	r, _, _ := purego.SyscallN(d.fn[fn], args...)
	if r &= 0xffffffff; r == 0 { // an int: the upper half of the register is unspecified
		return nil
	}
	return d.failed(fn, Result(r))
}

func (d *Driver) failed(fn int, code Result) error {
	e := &Error{Call: symbols[fn], Code: code, Name: "CUDA_ERROR_UNKNOWN"}
	var text *byte
	if r, _, _ := purego.SyscallN(d.fn[cuGetErrorName], uintptr(code), uintptr(unsafe.Pointer(&text))); r&0xffffffff == 0 && text != nil {
		e.Name = goString(text)
	}
	return e
}

func goString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// Attributes of a device.
const (
	attributeMultiprocessors = 16
	attributeMajor           = 75
	attributeMinor           = 76
	attributeSharedMemory    = 97
)

// Devices describes every device, usable or not.
func (d *Driver) Devices() ([]Info, error) {
	var n int32
	if err := d.call(cuDeviceGetCount, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	out := make([]Info, n)
	for i := range out {
		info := &out[i]
		info.Index = i
		var dev int32
		if err := d.call(cuDeviceGet, uintptr(unsafe.Pointer(&dev)), uintptr(i)); err != nil {
			return nil, err
		}
		var name [128]byte
		if err := d.call(cuDeviceGetName, uintptr(unsafe.Pointer(&name)), uintptr(len(name)), uintptr(dev)); err != nil {
			return nil, err
		}
		info.Name = goString(&name[0])
		if err := d.call(cuDeviceTotalMem, uintptr(unsafe.Pointer(&info.Memory)), uintptr(dev)); err != nil {
			return nil, err
		}
		for what, to := range map[int]*int{
			attributeMultiprocessors: &info.Multiprocessors, attributeMajor: &info.Capability[0],
			attributeMinor: &info.Capability[1], attributeSharedMemory: &info.SharedMemory,
		} {
			var v int32
			if err := d.call(cuDeviceGetAttribute, uintptr(unsafe.Pointer(&v)), uintptr(what), uintptr(dev)); err != nil {
				return nil, err
			}
			*to = int(v)
		}
	}
	return out, nil
}

// Symbol looks a function up in the driver's library.
func (d *Driver) Symbol(name string) (uintptr, error) { return purego.Dlsym(d.lib, name) }

// keep is memory whose address the driver is given again and again.
type keep struct {
	param [maxParam]byte
	list  [1]unsafe.Pointer
	pin   runtime.Pinner
}

// maxParam bounds the size of a kernel's parameter.
const maxParam = 256

func newKeep() *keep {
	k := new(keep)
	k.list[0] = unsafe.Pointer(&k.param)
	k.pin.Pin(k)
	return k
}
