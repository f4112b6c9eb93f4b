package reports

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// listen makes a socket that its owner alone may use.
func listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err = clearAway(addr); err == nil {
			l, err = net.ListenUnix("unix", addr)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// clearAway removes a socket that nobody listens on, and nothing else.
func clearAway(addr *net.UnixAddr) error {
	info, err := os.Lstat(addr.Name)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket: name another path", addr.Name)
	}
	probe, err := net.DialUnix("unix", nil, addr)
	switch {
	case err == nil:
		_ = probe.Close()
		return fmt.Errorf("another process listens on %s", addr.Name)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(addr.Name)
}
