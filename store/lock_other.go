//go:build !unix

package store

import (
	"io"
	"os"
	"path/filepath"
)

// lockDir has no lock to take here: the operator must not start two processes on one directory.
func lockDir(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
}
