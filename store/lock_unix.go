//go:build unix

package store

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir takes the directory for this process. The kernel lets go when the process ends, however it ends.
func lockDir(dir string) (io.Closer, error) {
	file, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, &os.SyscallError{Syscall: "flock", Err: err}
	}
	return file, nil
}
