package storebench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Of LMCache's own protocol (lmcache 0.5, lmcache/v1/protocol.py): little-endian words of 32 bits, then a key padded by spaces.
const (
	lmPut, lmGet, lmExist = 1, 2, 3

	lmSuccess   = 200
	lmKeyBytes  = 150
	lmHeader    = 9*4 + lmKeyBytes
	lmReply     = 9 * 4
	lmHalf      = 2 // float16
	lmFormat    = 1 // of a chunk of keys and values
	lmKept      = 4 // objects, after which the first one's key is used again: the server forgets nothing by itself
	lmChunkKeys = "bench@1@0@%016x@half"
)

// lmcache is a client of LMCache's server. Its connections are used by one stream at a time.
type lmcache struct {
	addr string
	free chan net.Conn
}

func newLMCache(addr string) *lmcache { return &lmcache{addr: addr, free: make(chan net.Conn, 64)} }

func (l *lmcache) close() error {
	close(l.free)
	var err error
	for conn := range l.free {
		err = errors.Join(err, conn.Close())
	}
	return err
}

// with lends a connection, and takes it back where nothing went wrong.
func (l *lmcache) with(ctx context.Context, do func(net.Conn) error) error {
	var conn net.Conn
	select {
	case conn = <-l.free:
	default:
		var err error
		if conn, err = new(net.Dialer).DialContext(ctx, "tcp", l.addr); err != nil {
			return fmt.Errorf("LMCache's server: %w", err)
		}
	}
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil { // none, where ctx has none
		return err
	}
	if err := do(conn); err != nil {
		return errors.Join(fmt.Errorf("LMCache's server: %w", err), conn.Close())
	}
	l.free <- conn
	return nil
}

func lmMessage(command int, key int64, size int) []byte {
	b := make([]byte, 0, lmHeader)
	for _, word := range []int{command, size, lmFormat, lmHalf, 0, size / 2, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, uint32(word))
	}
	b = fmt.Appendf(b, lmChunkKeys, key)
	for len(b) < lmHeader {
		b = append(b, ' ')
	}
	return b
}

// put sends an object and waits until the server says that it is there: it does not answer a put.
func (l *lmcache) put(ctx context.Context, key int64, blob []byte) error {
	return l.with(ctx, func(conn net.Conn) error {
		message := net.Buffers{lmMessage(lmPut, key, len(blob)), blob, lmMessage(lmExist, key, 0)}
		if _, err := message.WriteTo(conn); err != nil {
			return err
		}
		_, err := lmAnswer(conn)
		return err
	})
}

// get reads an object into memory of its own.
func (l *lmcache) get(ctx context.Context, key int64) error {
	return l.with(ctx, func(conn net.Conn) error {
		if _, err := conn.Write(lmMessage(lmGet, key, 0)); err != nil {
			return err
		}
		n, err := lmAnswer(conn)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, n))
		return err
	})
}

// lmAnswer is the length in a reply.
func lmAnswer(conn net.Conn) (length int, err error) {
	var b [lmReply]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return 0, err
	}
	if code := binary.LittleEndian.Uint32(b[:]); code != lmSuccess {
		return 0, fmt.Errorf("answers %d, want %d", code, lmSuccess)
	}
	return int(binary.LittleEndian.Uint32(b[4:])), nil
}
