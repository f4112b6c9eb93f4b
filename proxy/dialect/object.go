package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
)

// errTooMany: an object that is taken apart needs more memory than it has bytes.
var errTooMany = errors.New("the object has too many members")

// maxMembers bounds an object that is taken apart.
const maxMembers = 4096

// Object is a JSON object of which only the top level has been taken apart. Values keep their bytes: numbers keep their
// digits and unknown members stay. It borrows the text that it was read from.
type Object struct{ members []member }

type member struct {
	name  string // decoded, so that no escape can hide it
	key   []byte // as written, with quotes
	value []byte // as written
}

// ParseObject takes text apart; text must not be written to as long as the object is used. Text that is not one JSON
// object is an error that quotes nothing of it.
func ParseObject(text []byte) (*Object, error) {
	if !json.Valid(text) {
		return nil, errNotObject
	}
	s := scanner{text: text}
	s.space()
	if s.text[s.at] != '{' {
		return nil, errNotObject
	}
	o := &Object{members: make([]member, 0, 8)}
	for s.at++; ; {
		if len(o.members) > maxMembers {
			return nil, errTooMany
		}
		s.space()
		switch s.text[s.at] {
		case '}':
			return o, nil
		case ',':
			s.at++
			continue
		}
		m := member{key: s.value()}
		name, err := decodeText(m.key)
		if err != nil {
			return nil, errNotObject
		}
		m.name = name
		s.space()
		s.at++ // the colon
		s.space()
		m.value = s.value()
		o.members = append(o.members, m)
	}
}

// Get is the value of a member as it is written.
func (o *Object) Get(name string) ([]byte, bool) {
	for i := range o.members {
		if o.members[i].name == name {
			return o.members[i].value, true
		}
	}
	return nil, false
}

// Count says how often a member is there.
func (o *Object) Count(name string) int {
	n := 0
	for i := range o.members {
		if o.members[i].name == name {
			n++
		}
	}
	return n
}

// Delete removes a member, however often it is there.
func (o *Object) Delete(name string) {
	kept := o.members[:0]
	for _, m := range o.members {
		if m.name != name {
			kept = append(kept, m)
		}
	}
	o.members = kept
}

// Set gives a member the value, which must be valid JSON: in its place if it is there, else at the end.
func (o *Object) Set(name string, value []byte) {
	for i := range o.members {
		if o.members[i].name == name {
			o.members[i].value = value
			return
		}
	}
	o.members = append(o.members, member{name: name, key: quote(name), value: value})
}

// quote writes a string as JSON.
func quote(s string) []byte {
	if plainText(s) {
		return append(append(append(make([]byte, 0, len(s)+2), '"'), s...), '"')
	}
	out, err := json.Marshal(s)
	if err != nil {
		panic("dialect: a text cannot be written: " + err.Error()) // cannot happen
	}
	return out
}

// plainText says whether a string stands in JSON as it is.
func plainText(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < 0x20 || b >= 0x7f || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' {
			return false
		}
	}
	return true
}

// Bytes writes the object.
func (o *Object) Bytes() []byte {
	size := 2
	for i := range o.members {
		size += len(o.members[i].key) + len(o.members[i].value) + 2
	}
	out := append(make([]byte, 0, size), '{')
	for i := range o.members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, o.members[i].key...), ':'), o.members[i].value...)
	}
	return append(out, '}')
}

// decodeText decodes a JSON string. One of plain ASCII is what stands between its quotes.
func decodeText(value []byte) (string, error) {
	if n := len(value); n >= 2 && value[0] == '"' && plain(value[1:n-1]) {
		return string(value[1 : n-1]), nil
	}
	var decoded string
	err := json.Unmarshal(value, &decoded)
	return decoded, err
}

func plain(inner []byte) bool {
	for _, b := range inner {
		if b >= 0x80 || b == '\\' {
			return false
		}
	}
	return true
}

// scanner steps over values of text that is known to be valid JSON.
type scanner struct {
	text []byte
	at   int
}

func (s *scanner) space() {
	for s.at < len(s.text) && bytes.IndexByte([]byte(" \t\r\n"), s.text[s.at]) >= 0 {
		s.at++
	}
}

// value steps over one value and returns it.
func (s *scanner) value() []byte {
	from, depth := s.at, 0
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '"':
			s.string()
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			if depth == 0 {
				return s.text[from:s.at] // a number or a word ends here
			}
			depth--
			s.at++
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return s.text[from:s.at]
			}
			s.at++
			continue
		default:
			s.at++
			continue
		}
		if depth == 0 {
			return s.text[from:s.at]
		}
	}
	return s.text[from:s.at]
}

func (s *scanner) string() {
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
}
