//go:build !unix

package evaluate

import "os"

// mapFile reads a whole file where there is no mmap.
func mapFile(name string) (data []byte, done func(), err error) {
	data, err = os.ReadFile(name)
	return data, func() {}, err
}
