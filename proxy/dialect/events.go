package dialect

import (
	"bytes"
	"io"
)

// MaxEvent bounds an event that is looked at; a longer one passes as it comes.
const MaxEvent = 1 << 20

// keepBuffer is how long a buffer may be that is kept for the next event.
const keepBuffer = 1 << 10

// Events reads a stream of server-sent events and hands each whole event's data to See before it passes. A Read returns
// as soon as one event is whole: nothing is held back for more. It is not safe for concurrent use.
type Events struct {
	// See is given an event's data (its data lines joined, without the last newline) and returns what is to pass in its
	// place; changed false lets the event pass as it is, and nil with changed true drops it. data is valid during the call.
	See func(data []byte) (shown []byte, changed bool)

	src  io.ReadCloser
	in   []byte // read, not yet whole
	seen int    // of in: no event ends in there
	out  []byte // whole
	gone int    // of out: handed on
	raw  bool   // inside an event that is too long
	err  error
}

// NewEvents reads from src, which it owns from then on.
func NewEvents(src io.ReadCloser, see func(data []byte) ([]byte, bool)) *Events {
	return &Events{See: see, src: src}
}

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
		e.in, e.err = append(e.in, p[:n]...), err
		e.split()
		if e.err != nil { // an event that was cut passes as far as it came
			e.out, e.in = append(e.out, e.in...), nil
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

// split moves the whole events of in to out.
func (e *Events) split() {
	for {
		end := eventEnd(e.in, max(0, e.seen-2)) // an end has up to three bytes
		if end < 0 {
			e.seen = len(e.in)
			if len(e.in) > MaxEvent || e.raw {
				e.raw = true
				keep := min(len(e.in), 3) // an end may be cut in two
				e.out = append(e.out, e.in[:len(e.in)-keep]...)
				e.in = append(e.in[:0], e.in[len(e.in)-keep:]...)
				e.seen = 0
			}
			return
		}
		event := e.in[:end]
		if e.raw {
			e.raw, e.out = false, append(e.out, event...)
		} else {
			e.out = e.pass(event)
		}
		e.in, e.seen = append(e.in[:0], e.in[end:]...), 0
	}
}

// pass appends what is shown of an event to out.
func (e *Events) pass(event []byte) []byte {
	data, n := eventData(event)
	if n == 0 {
		return append(e.out, event...)
	}
	shown, changed := e.See(data)
	switch {
	case !changed:
		return append(e.out, event...)
	case shown == nil:
		return e.out
	}
	written := false
	for line := range bytes.Lines(event) {
		if !bytes.HasPrefix(line, []byte("data:")) {
			e.out = append(e.out, line...)
			continue
		}
		if !written {
			written = true
			e.out = append(append(append(e.out, "data: "...), shown...), '\n')
		}
	}
	return e.out
}

// eventEnd is the length of the first event with its blank line, which does not end before from; -1 when it is not whole.
func eventEnd(text []byte, from int) int {
	for {
		i := bytes.IndexByte(text[from:], '\n')
		if i < 0 {
			return -1
		}
		from += i + 1
		switch rest := text[from:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return from + 1
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return from + 2
		}
	}
}

// eventData joins the data lines of an event and counts them.
func eventData(event []byte) (data []byte, lines int) {
	for line := range bytes.Lines(event) {
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		value = bytes.TrimRight(value, "\r\n")
		value = bytes.TrimPrefix(value, []byte(" "))
		if lines++; lines == 1 {
			data = value
			continue
		}
		data = append(append(bytes.Clone(data), '\n'), value...)
	}
	return data, lines
}
