package cuda

import (
	"errors"
	"fmt"
)

// ErrNoDriver says that there is no driver to load.
var ErrNoDriver = errors.New("no CUDA driver")

// ErrOldDriver says that the driver is older than the kernels need.
var ErrOldDriver = errors.New("the CUDA driver is too old")

// MinVersion is the oldest driver interface that reads the embedded kernels (PTX 7.0): CUDA 11.0.
const MinVersion = 11000

// Result is a code of the driver.
type Result int

// The codes that callers tell apart.
const (
	OutOfMemory          Result = 2
	NoDevice             Result = 100
	LaunchOutOfResources Result = 701
)

// Error is a call of the driver that failed.
type Error struct {
	Call string // the driver's function
	Code Result
	Name string // the driver's name for Code
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code) }

// Lost reports whether the context can no longer be used: everything that follows would fail with the same code. What the
// driver refuses before it starts (no memory, a bad argument, a launch that asks for too much) loses nothing.
func (e *Error) Lost() bool {
	switch e.Code {
	case 1, OutOfMemory, NoDevice, 101, 200, 209, 218, 222, 400, 500, 600, LaunchOutOfResources:
		return false
	}
	return true
}

// Pointer is an address in a device's memory.
type Pointer uint64

// Stream is a queue of copies and kernels that run one after another.
type Stream uintptr

// Event is a mark in a stream.
type Event uintptr

// Module is loaded PTX.
type Module uintptr

// Function is a kernel of a module.
type Function uintptr

// Info describes a device.
type Info struct {
	Index           int
	Name            string
	Memory          uint64 // bytes
	Capability      [2]int // compute capability, major and minor
	Multiprocessors int
	SharedMemory    int // most bytes of shared memory of a block
}

// MinCapability is what the embedded kernels are built for: Ampere.
var MinCapability = [2]int{8, 0}

// Usable says why a device cannot be used, nil when it can.
func (i *Info) Usable() error {
	if i.Capability[0] < MinCapability[0] {
		return fmt.Errorf("compute capability %d.%d is below %d.%d", i.Capability[0], i.Capability[1], MinCapability[0], MinCapability[1])
	}
	return nil
}
