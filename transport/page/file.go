package page

import (
	"fmt"
	"io"
	"os"
)

// ReadFile reads a page. It refuses a file that no page can be before it is read.
func ReadFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if limit := DefaultLimits().MaxBytes; info.Size() > limit {
		return nil, fmt.Errorf("%s: page.too_large: the file has %d bytes, the most is %d", file, info.Size(), limit)
	}
	if info.Mode().IsRegular() {
		return os.ReadFile(file)
	}
	f, err := os.Open(file) // a pipe or a device has no size
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	blob, err := io.ReadAll(io.LimitReader(f, MaxPiped+1))
	if err == nil && len(blob) > MaxPiped {
		err = fmt.Errorf("%s: page.too_large: it is no file, and gives more than %d bytes", file, MaxPiped)
	}
	return blob, err
}

// MaxPiped bounds a page that comes from a pipe or a device, in bytes.
const MaxPiped = 64 << 20
