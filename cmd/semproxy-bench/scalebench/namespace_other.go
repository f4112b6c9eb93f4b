//go:build !linux

package scalebench

import (
	"errors"
	"os/exec"
)

// Namespaced is for Linux.
func Namespaced(string, ...string) (*exec.Cmd, error) {
	return nil, errors.New("only Linux has network namespaces")
}

func openBridge() error { return errors.New("only Linux has network namespaces") }

type namespace struct {
	loopback
	index int
}
