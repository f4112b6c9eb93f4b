//go:build !unix

package hop

import "net"

// quiet cannot be told here without taking what has come.
func quiet(net.Conn) bool { return true }
