package dialect

import (
	"bytes"
	"io"
)

// MaxEvent bounds an event that is held until it is whole; a longer one passes as it comes, read in pieces.
const MaxEvent = 64 << 10

// keepBuffer is how long a buffer may be that is kept for the next event.
const keepBuffer = 1 << 10

// Seer looks at the data of events (their data lines joined, without the last newline). *Answer is one.
type Seer interface {
	// Event returns what is to pass in the place of an event's data; changed false lets the event pass as it is, and nil with
	// changed true drops it. data is valid during the call.
	Event(data []byte) (shown []byte, changed bool)
	// Begin begins an event that is too long to be held, and Pass returns what is to pass of its next piece.
	Begin()
	Pass(p []byte) []byte
}

// Events reads a stream of server-sent events and hands each whole event's data to a Seer before it passes. A Read returns as
// soon as one event is whole: nothing is held back for more. Lines end with LF, CRLF or CR. What has come of an event when the
// stream ends is looked at like a whole one. It is not safe for concurrent use.
type Events struct {
	see Seer
	src io.ReadCloser

	in    []byte // read, not yet whole
	line  int    // of in: where the last line begins
	seen  int    // of in: no line ends in there, from line on
	cr    bool   // the byte before in[seen] is a CR that ends a line
	begun bool   // the first line has passed, which may begin with a byte order mark
	kept  bool   // the event before was not dropped
	long  bool   // inside an event that is too long
	head  []byte // of a line of it, until it is known what line it is
	body  lineKind

	out  []byte // whole
	gone int    // of out: handed on
	err  error
}

type lineKind uint8

const (
	unknownLine lineKind = iota
	dataLine
	otherLine
)

// NewEvents reads from src, which it owns from then on.
func NewEvents(src io.ReadCloser, see Seer) *Events { return &Events{see: see, src: src} }

// Close closes the source.
func (e *Events) Close() error { return e.src.Close() }

// Read is part of io.Reader. The source is read into p: a stream that waits holds no buffer but its reader's.
func (e *Events) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(e.out) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		n, err := e.src.Read(p)
		e.err = err
		e.take(p[:n])
		if err != nil && len(e.in) > 0 {
			e.pass(e.in)
			e.in = nil
		}
	}
	n := copy(p, e.out[e.gone:])
	if e.gone += n; e.gone == len(e.out) {
		e.out, e.gone = e.out[:0], 0
		if cap(e.out) > keepBuffer {
			e.out = nil
		}
	}
	if len(e.in) == 0 && cap(e.in) > keepBuffer {
		e.in = nil
	}
	return n, nil
}

// take takes what was read.
func (e *Events) take(p []byte) {
	if e.long {
		p = e.pieces(p)
	}
	if len(p) == 0 {
		return
	}
	e.in = append(e.in, p...)
	e.split()
	if len(e.in) <= MaxEvent {
		return
	}
	e.see.Begin()
	e.long, e.head, e.body, e.cr = true, e.head[:0], unknownLine, false
	p, e.in, e.line, e.seen = e.in, nil, 0, 0
	e.pieces(p) // no event ends in it
}

// split passes the whole events of in.
func (e *Events) split() {
	done := 0
	for e.seen < len(e.in) {
		if e.cr {
			if e.cr = false; e.in[e.seen] == '\n' { // the second byte of a line's end
				e.seen++
				if e.line++; e.line-1 == done { // of the event before
					if e.kept {
						e.out = append(e.out, '\n')
					}
					done++
				}
				continue
			}
		}
		i := lineEnd(e.in[e.seen:])
		if i < 0 {
			e.seen = len(e.in)
			break
		}
		i += e.seen
		next := i + 1
		if e.cr = e.in[i] == '\r'; e.cr && next < len(e.in) && e.in[next] == '\n' {
			e.cr = false
			next++
		}
		empty := i == e.line
		e.seen, e.line = next, next
		if empty {
			e.pass(e.in[done:next])
			done = next
		}
	}
	e.in = append(e.in[:0], e.in[done:]...)
	e.seen, e.line = e.seen-done, e.line-done
}

// lineEnd is where the first CR or LF is; -1 when there is none.
func lineEnd(text []byte) int {
	i := bytes.IndexByte(text, '\n')
	if i >= 0 {
		text = text[:i]
	}
	if j := bytes.IndexByte(text, '\r'); j >= 0 {
		return j
	}
	return i
}

// pass appends what is shown of an event to out.
func (e *Events) pass(event []byte) {
	e.kept = true
	data, n := eventData(event, !e.begun)
	e.begun = true
	if n == 0 {
		e.out = append(e.out, event...)
		return
	}
	shown, changed := e.see.Event(data)
	switch {
	case !changed:
		e.out = append(e.out, event...)
		return
	case shown == nil:
		e.kept = false
		return
	}
	written := false
	for len(event) > 0 {
		line, end, rest := cutLine(event)
		event = rest
		switch {
		case !bytes.HasPrefix(bytes.TrimPrefix(line, byteOrderMark), dataField):
			e.out = append(append(e.out, line...), end...)
		case !written:
			written = true
			e.out = append(append(append(e.out, "data: "...), shown...), end...)
		}
	}
}

// pieces passes an event that is too long up to its end, and returns what follows.
func (e *Events) pieces(p []byte) []byte {
	for len(p) > 0 {
		if e.body == unknownLine {
			c := p[0]
			p = p[1:]
			e.head = append(e.head, c)
			switch {
			case c == '\n' && e.cr: // the second byte of a line's end
				e.cr = false
				e.out, e.head = append(e.out, c), e.head[:0]
			case c == '\n' || c == '\r':
				empty := len(e.head) == 1
				e.out, e.head, e.cr = append(e.out, e.head...), e.head[:0], c == '\r'
				if empty {
					e.long, e.kept = false, true
					return p
				}
			case len(e.head) == len(dataField):
				e.cr, e.body = false, otherLine
				if bytes.Equal(e.head, dataField) {
					e.body = dataLine
				}
				e.out, e.head = append(e.out, e.head...), e.head[:0]
			}
			continue
		}
		run, end := p, []byte(nil)
		if i := lineEnd(p); i >= 0 {
			run, end = p[:i], p[i:i+1]
		}
		if e.body == dataLine {
			e.out = append(e.out, e.see.Pass(run)...)
		} else {
			e.out = append(e.out, run...)
		}
		if p = p[len(run)+len(end):]; end != nil {
			e.out, e.body, e.cr = append(e.out, end...), unknownLine, end[0] == '\r'
		}
	}
	return nil
}

var dataField, byteOrderMark = []byte("data:"), []byte("\xef\xbb\xbf")

// cutLine takes the first line off, and what ends it.
func cutLine(text []byte) (line, end, rest []byte) {
	i := lineEnd(text)
	if i < 0 {
		return text, nil, nil
	}
	next := i + 1
	if text[i] == '\r' && next < len(text) && text[next] == '\n' {
		next++
	}
	return text[:i], text[i:next], text[next:]
}

// eventData joins the data lines of an event and counts them. The first event of a stream may begin with a byte order mark.
func eventData(event []byte, first bool) (data []byte, lines int) {
	if first {
		event = bytes.TrimPrefix(event, byteOrderMark)
	}
	for len(event) > 0 {
		var line []byte
		line, _, event = cutLine(event)
		value, ok := bytes.CutPrefix(line, dataField)
		if !ok {
			continue
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if lines++; lines == 1 {
			data = value
			continue
		}
		data = append(append(bytes.Clone(data), '\n'), value...)
	}
	return data, lines
}
