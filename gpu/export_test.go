package gpu

import "github.com/semproxy/semproxy/gpu/cuda"

// Fence makes f hear of every array on a device.
func Fence(f func(at, n, taken uintptr)) {
	fence = func(at cuda.Pointer, n, taken int) { f(uintptr(at), uintptr(n), uintptr(taken)) }
}

// Hurry makes a lost device be probed at once.
func (o Options) Hurry() Options {
	o.hurry = true
	return o
}
