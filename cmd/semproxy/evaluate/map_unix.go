//go:build unix

package evaluate

import (
	"fmt"
	"math"
	"os"
	"syscall"
)

// mapFile maps a file, so that weights of many gigabytes are read as they are used. The bytes must not be used after done.
func mapFile(name string) (data []byte, done func(), err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() < 1 || info.Size() > math.MaxInt {
		return nil, nil, fmt.Errorf("%s: a file of %d bytes cannot be mapped", name, info.Size())
	}
	data, err = syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", name, err)
	}
	return data, func() { _ = syscall.Munmap(data) }, nil
}
