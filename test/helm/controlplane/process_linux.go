package controlplane

import "syscall"

// endsWithParent has the kernel kill a process whose test was killed.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
