package dialect

import "errors"

// errNotObject says what a body must be.
var errNotObject = errors.New("the body must be one JSON object")

var errNotJSON = errors.New("not JSON")

// maxDepth is how deep values may be nested, as in encoding/json.
const maxDepth = 10000

// Bounds of what a scan holds of a text, however long that is: a key (no name that is looked for is longer, even if every
// character is escaped), and white space before one.
const (
	maxKey   = 256
	maxSpace = 64
)

// place says where in a text a value is, as far as the reader of the text cares. ignored: nothing in it is looked at or removed.
type place uint8

const ignored place = 0

// fate is what becomes of a member.
type fate uint8

const (
	passes  fate = iota
	cut          // it is removed
	kept         // it is removed, and its value is given to the reader
	watched      // it passes, and its value is given to the reader
	hidden       // it is removed, and the reader looks at what is in it as if it passed
)

// visitor reads a text as it passes. Values within what is cut or given to it whole are not shown to it.
type visitor interface {
	// member is called for each member of an object in a place that is not ignored, and says where its value is.
	member(in place, name string) (place, fate, error)
	// value begins in a place, as an element of a list or not; kind is its first byte. It may say that it is elsewhere.
	value(at place, element bool, kind byte) place
	// text is a string or another scalar that has ended: its length when decoded, about, and its first bytes.
	text(at place, quoted bool, length int, begins []byte)
	// whole is the value of a member that was to be given to the reader; short is false where it was longer than most.
	whole(at place, name string, value []byte, short bool) error
}

// scan passes a JSON text on as it comes in pieces, without the members that its visitor removes, in whatever depth, and holds
// nothing of it. What it passes is appended to out. A strict one takes one object that is JSON in every byte; another takes
// several values one after the other, and numbers that JSON has not.
type scan struct {
	visit  visitor
	strict bool
	most   int            // bytes of a value that is given to the visitor
	spy    func(p []byte) // is given the parts of strings in the places prompts and prompt; nil: nobody
	open   bool           // the closing brace of the object does not pass: more members are to follow
	out    []byte

	state   state
	stack   []frame
	mode    mode
	changed bool // something was removed
	done    bool // a value is whole

	held    []byte // of a member whose name is not known yet, with the comma before it
	spaces  int    // of held
	key     []byte // as written, with quotes; longer than maxKey: not looked for
	named   string // the member whose value is held or watched
	taken   []byte // of that value
	taking  bool
	short   bool
	hiding  bool  // what is cut is looked at all the same
	cutTo   int   // depth at which what is cut ends; 0: nothing is
	takeTo  int   // and what is taken
	next    place // of the value that comes
	at      place // of the string or scalar that is being read
	length  int
	begins  [64]byte
	literal string // what is left of true, false, null
	some    bool   // the object that is left open has members

	piece []byte // that is being read
	run   int    // piece[run:] has not been moved yet
}

func newScan(v visitor, strict bool, most int) *scan {
	return &scan{visit: v, strict: strict, most: most, next: root}
}

// frame is an object or a list that is open.
type frame struct {
	place place
	list  bool
	some  bool // of an object: a member has passed
}

type mode uint8

const (
	passing mode = iota
	holding      // of a member: is it to be cut?
	cutting
)

// write takes the next piece. After an error nothing more is taken.
func (s *scan) write(p []byte) error {
	s.piece, s.run = p, 0
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch s.state {
		case inString, inKey:
			j := i
			for j < len(p) && plainByte[p[j]] {
				j++
			}
			if s.state == inKey {
				s.spell(i, j)
			} else {
				s.measure(p[i:j])
			}
			if i = j; i < len(p) {
				if err := s.quoted(i); err != nil {
					return err
				}
			}
		case inKeyEscape: // what follows is checked when the key is decoded
			s.spell(i, i+1)
			s.state = inKey
		case inEscape, inHex4, inHex3, inHex2, inHex1:
			if err := s.escape(c); err != nil {
				return err
			}
		case inLiteral:
			if c != s.literal[0] {
				return errNotJSON
			}
			if s.literal = s.literal[1:]; s.literal == "" {
				s.leaf(false)
				if err := s.end(i + 1); err != nil {
					return err
				}
			}
		case inMinus, inZero, inDigits, inPoint, inFraction, inExp, inExpSign, inExpDigits, inScalar:
			next, ok := s.number(c)
			if ok {
				s.state = next
				s.note(c)
				continue
			}
			switch s.state {
			case inMinus, inPoint, inExp, inExpSign:
				return errNotJSON
			}
			s.leaf(false)
			if err := s.end(i); err != nil {
				return err
			}
			i-- // it is looked at again
		default:
			if !space(c) {
				if err := s.structure(c, i); err != nil {
					return err
				}
			} else if s.mode == holding {
				if s.spaces++; s.spaces > maxSpace { // white space may go
					s.flush(i)
					s.run = i + 1
				}
			}
		}
	}
	s.flush(len(p))
	s.piece = nil
	return nil
}

// escape takes a byte after the backslash of a string.
func (s *scan) escape(c byte) error {
	if s.state == inEscape {
		switch c {
		case 'u':
			s.state = inHex4
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			s.length++
			s.state = inString
		default:
			return errNotJSON
		}
		return nil
	}
	if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
		return errNotJSON
	}
	if s.state++; s.state > inHex1 {
		s.length += 3
		s.state = inString
	}
	return nil
}

// quoted takes a byte of a string or a key that does not stand for itself.
func (s *scan) quoted(i int) error {
	switch c := s.piece[i]; {
	case c == '\\' && s.state == inString:
		s.state = inEscape
	case c == '\\':
		s.spell(i, i+1)
		s.state = inKeyEscape
	case c != '"':
		return errNotJSON // a control character
	case s.state == inString:
		s.leaf(true)
		return s.end(i + 1)
	default:
		s.spell(i, i+1)
		s.state = atColon
		return s.decide(i + 1)
	}
	return nil
}

// structure takes a byte between values.
func (s *scan) structure(c byte, i int) error {
	switch s.state {
	case atFirst:
		if c == ']' {
			return s.close(i, true)
		}
		return s.begin(c, i)
	case atValue:
		return s.begin(c, i)
	case atMember, atKey:
		if c == '}' && s.state == atMember {
			return s.close(i, false)
		}
		if c != '"' {
			return errNotJSON
		}
		s.state, s.key = inKey, append(s.key[:0], '"')
	case atColon:
		if c != ':' {
			return errNotJSON
		}
		s.state = atValue
	case atNext:
		top := &s.stack[len(s.stack)-1]
		switch {
		case c == ',' && top.list:
			s.state, s.next = atValue, top.place
		case c == ',':
			s.state = atKey
			s.hold(i)
		case c == ']', c == '}':
			return s.close(i, c == ']')
		default:
			return errNotJSON
		}
	case atEnd:
		if s.strict {
			return errNotJSON
		}
		s.next = root
		return s.begin(c, i)
	default:
		return errNotJSON
	}
	return nil
}

// hold begins to hold a member back until its name is known, where that matters.
func (s *scan) hold(i int) {
	if s.mode == passing && !s.taking && s.stack[len(s.stack)-1].place != ignored {
		s.flush(i)
		s.mode, s.held, s.spaces = holding, s.held[:0], 0
	}
}

// begin begins a value at its first byte.
func (s *scan) begin(c byte, i int) error {
	element := len(s.stack) > 0 && s.stack[len(s.stack)-1].list
	at := s.next
	if s.looks() && at != ignored {
		at = s.visit.value(at, element, c)
	}
	s.at, s.length = at, 0
	switch c {
	case '{', '[':
		if len(s.stack) >= maxDepth {
			return errNotJSON
		}
		if len(s.stack) == 0 && s.strict && c == '[' {
			return errNotObject
		}
		s.stack = append(s.stack, frame{place: at, list: c == '['})
		if s.next, s.state = at, atFirst; c == '{' {
			s.state = atMember
			s.hold(i + 1)
		}
		return nil
	case '"':
		s.state = inString
	case '-':
		s.state = inMinus
		s.note(c)
	case '0':
		s.state = inZero
		s.note(c)
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		s.state = inDigits
		s.note(c)
	case 't':
		s.state, s.literal = inLiteral, "true"[1:]
		s.note(c)
	case 'f':
		s.state, s.literal = inLiteral, "false"[1:]
		s.note(c)
	case 'n':
		s.state, s.literal = inLiteral, "null"[1:]
		s.note(c)
	default:
		if s.strict {
			return errNotJSON
		}
		s.state = inScalar
		switch c {
		case '}', ']', ',', ':':
			return errNotJSON
		}
	}
	if len(s.stack) == 0 && s.strict {
		return errNotObject
	}
	if !s.strict && c != '"' {
		s.state = inScalar
	}
	return nil
}

// close ends an object or a list at its last byte.
func (s *scan) close(i int, list bool) error {
	if len(s.stack) == 0 || s.stack[len(s.stack)-1].list != list {
		return errNotJSON
	}
	if s.mode == holding { // an object without members
		s.flush(i)
		s.out = append(s.out, s.held...)
		s.mode = passing
	}
	s.some = s.stack[len(s.stack)-1].some
	s.stack = s.stack[:len(s.stack)-1]
	if len(s.stack) == 0 && s.open {
		s.flush(i)
		s.mode = cutting // what follows is white space
	}
	return s.end(i + 1)
}

// end follows a value whose last byte is before i.
func (s *scan) end(i int) error {
	s.state = atNext
	if len(s.stack) == 0 {
		s.state, s.done = atEnd, true
		return nil
	}
	if s.takeTo == len(s.stack) {
		s.flush(i)
		s.takeTo, s.taking = 0, false
		if err := s.visit.whole(s.stack[len(s.stack)-1].place, s.named, s.taken, s.short); err != nil {
			return err
		}
	}
	if s.cutTo == len(s.stack) {
		s.flush(i)
		s.cutTo, s.mode, s.hiding = 0, passing, false
	}
	return nil
}
