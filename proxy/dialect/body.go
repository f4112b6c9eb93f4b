package dialect

import (
	"bytes"
	"io"
)

// Pieces of a body.
const (
	smallPiece = 4 << 10
	firstPiece = 24 << 10 // at most: a length that is only announced costs no more
	largePiece = 256 << 10
	tailRoom   = 1 << 10 // for what the proxy adds
)

// Body is a text in pieces, so that it grows without being copied.
type Body struct {
	pieces [][]byte
	size   int64
	held   int64 // with what the pieces have room for
	next   int   // size of the next piece
}

// expect says how long the body will be, about; negative: not known.
func (b *Body) expect(size int64) {
	b.next = smallPiece
	if size >= 0 {
		b.next = int(min(size+tailRoom, firstPiece))
	}
}

// room is the piece to append n bytes to; put takes it back.
func (b *Body) room(n int) []byte {
	if last := len(b.pieces) - 1; last >= 0 && cap(b.pieces[last])-len(b.pieces[last]) >= n {
		return b.pieces[last]
	}
	size := max(b.next, n)
	b.next = min(2*size, largePiece)
	b.held += int64(size)
	b.pieces = append(b.pieces, make([]byte, 0, size))
	return b.pieces[len(b.pieces)-1]
}

func (b *Body) put(piece []byte) {
	last := &b.pieces[len(b.pieces)-1]
	b.size += int64(len(piece) - len(*last))
	*last = piece
}

func (b *Body) append(p []byte) {
	b.size += int64(len(p))
	if last := len(b.pieces) - 1; last >= 0 && cap(b.pieces[last])-len(b.pieces[last]) >= len(p) {
		b.pieces[last] = append(b.pieces[last], p...)
		return
	}
	b.pieces = append(b.pieces, p)
	b.held += int64(cap(p))
}

// NewBody is a body of one piece.
func NewBody(text []byte) *Body {
	b := &Body{}
	b.append(text)
	return b
}

// Len is the length in bytes.
func (b *Body) Len() int64 { return b.size }

// Held is how many bytes of memory it takes, about.
func (b *Body) Held() int64 { return b.held }

// Bytes is the whole text; a copy, where it has several pieces.
func (b *Body) Bytes() []byte {
	if len(b.pieces) == 1 {
		return b.pieces[0]
	}
	return bytes.Join(b.pieces, nil)
}

// Pieces are the text one after the other; read only.
func (b *Body) Pieces() [][]byte { return b.pieces }

// Reading is a reader of a body, which lets go of it when it is reset.
type Reading interface {
	io.Reader
	Reset(p []byte)
}

// Reader reads the text from its beginning. There may be several.
func (b *Body) Reader() Reading {
	if len(b.pieces) == 1 { // net/http knows this type, and writes it together with the headers
		return bytes.NewReader(b.pieces[0])
	}
	return &pieces{left: b.pieces}
}

type pieces struct {
	left [][]byte
	at   int // of the first
}

// Read is part of io.Reader.
func (r *pieces) Read(p []byte) (int, error) {
	for len(r.left) > 0 {
		if n := copy(p, r.left[0][r.at:]); n > 0 {
			r.at += n
			return n, nil
		}
		r.left, r.at = r.left[1:], 0
	}
	return 0, io.EOF
}

// Reset is part of Reading.
func (r *pieces) Reset([]byte) { r.left = nil }
