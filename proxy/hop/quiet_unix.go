//go:build unix

package hop

import (
	"net"
	"syscall"
)

// quiet says whether nothing has come on a connection that waits for the next request, not even its end: what an engine says unasked must
// not be taken for the next answer.
func quiet(c net.Conn) bool {
	raw, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	still := false
	var one [1]byte
	err = rc.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		still = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK //nolint:errorlint // of a system call
		return true
	})
	return err == nil && still
}
