package reports

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sameUser refuses processes of others than this process's user and root.
func sameUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if asked != nil {
		return asked
	}
	return mayReport(peer.Pid, int(peer.Uid), os.Geteuid())
}

func mayReport(pid int32, uid, own int) error {
	if uid != own && uid != 0 {
		return fmt.Errorf("process %d is of user %d, this one of user %d", pid, uid, own)
	}
	return nil
}
