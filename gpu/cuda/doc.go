// Package cuda is the part of NVIDIA's driver interface that semproxy needs, without cgo.
//
// The library libcuda.so.1 is looked for when [Open] is called, not when the program is built or started, so one binary serves
// machines with and without a GPU. A build with the tag nogpu, or for another system than Linux, has no driver at all and Open
// says so. Memory and kernels belong to a [Context], which belongs to the operating system's thread that made it current: its
// owner locks a goroutine to a thread and calls it from nowhere else.
package cuda
