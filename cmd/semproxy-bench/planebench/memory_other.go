//go:build !linux

package planebench

// memoryPaths are none: only Linux has shared memory.
func memoryPaths() []path { return nil }
