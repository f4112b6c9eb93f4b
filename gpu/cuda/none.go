//go:build nogpu || !linux || !(amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
)

// Driver is a loaded driver. This build has none.
type Driver struct {
	Path    string
	Version int
}

// Context is a device's context. This build has none.
type Context struct{}

var errNone = fmt.Errorf("%w: this build has no GPU support", ErrNoDriver)

var errUnreachable = errors.New("cuda: no driver")

// Open reports that there is no driver.
func Open(string) (*Driver, error) { return nil, errNone }

// Devices lists nothing.
func (d *Driver) Devices() ([]Info, error) { return nil, errNone }

// NewContext fails.
func (d *Driver) NewContext(int) (*Context, error) { return nil, errNone }

// The methods of a context that cannot exist.

func (c *Context) Release() error                                       { return errUnreachable }
func (c *Context) Reset() error                                         { return errUnreachable }
func (c *Context) Alloc(int) (Pointer, error)                           { return 0, errUnreachable }
func (c *Context) Free(Pointer) error                                   { return errUnreachable }
func (c *Context) MemInfo() (free, total uint64, err error)             { return 0, 0, errUnreachable }
func (c *Context) HostAlloc(int) ([]byte, error)                        { return nil, errUnreachable }
func (c *Context) HostFree([]byte) error                                { return errUnreachable }
func (c *Context) CopyIn(Pointer, []byte, Stream) error                 { return errUnreachable }
func (c *Context) CopyOut([]byte, Pointer, Stream) error                { return errUnreachable }
func (c *Context) CopyWithin(Pointer, Pointer, int, Stream) error       { return errUnreachable }
func (c *Context) NewStream() (Stream, error)                           { return 0, errUnreachable }
func (c *Context) FreeStream(Stream) error                              { return errUnreachable }
func (c *Context) Wait(Stream) error                                    { return errUnreachable }
func (c *Context) NewEvent() (Event, error)                             { return 0, errUnreachable }
func (c *Context) FreeEvent(Event) error                                { return errUnreachable }
func (c *Context) Record(Event, Stream) error                           { return errUnreachable }
func (c *Context) WaitEvent(Event) error                                { return errUnreachable }
func (c *Context) Milliseconds(Event, Event) (float32, error)           { return 0, errUnreachable }
func (c *Context) Load([]byte) (Module, error)                          { return 0, errUnreachable }
func (c *Context) Unload(Module) error                                  { return errUnreachable }
func (c *Context) Function(Module, string, int) (Function, error)       { return 0, errUnreachable }
func (c *Context) Launch(Function, int, int, int, Stream, []byte) error { return errUnreachable }
