package page

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// cursor reads the little JSON that a header needs, strictly: objects without repeated keys, strings, numbers and
// booleans, at the depth that the caller walks by hand. A value of another kind, however deep, is refused at its first
// byte, so nothing recurses. The text must be valid UTF-8.
type cursor struct {
	text []byte
	at   int
	code string // of the errors
	name string // what is being read, for the errors
}

func (c *cursor) bad(want string) error {
	got := "the end"
	if c.at < len(c.text) {
		got = fmt.Sprintf("%q", rune(c.text[c.at]))
	}
	return refuse(c.code, fmt.Sprintf("%s is malformed at byte %d", c.name, c.at), got, want)
}

func (c *cursor) space() {
	for c.at < len(c.text) {
		switch c.text[c.at] {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return
		}
	}
}

// is skips white space and says whether the next byte is b; if so, it is consumed.
func (c *cursor) is(b byte) bool {
	c.space()
	if c.at < len(c.text) && c.text[c.at] == b {
		c.at++
		return true
	}
	return false
}

func (c *cursor) expect(b byte) error {
	if c.is(b) {
		return nil
	}
	return c.bad(fmt.Sprintf("%q", rune(b)))
}

// end demands that nothing but white space is left.
func (c *cursor) end() error {
	c.space()
	if c.at != len(c.text) {
		return c.bad("the end")
	}
	return nil
}

// object reads an object of at most most keys; field must consume the value of each key.
func (c *cursor) object(most int, field func(key string) error) error {
	if err := c.expect('{'); err != nil {
		return err
	}
	if c.is('}') {
		return nil
	}
	var seen []string // few keys: a scan is cheaper than a map, and its memory is bounded
	for {
		key, err := c.str()
		if err != nil {
			return err
		}
		if len(key) > maxKeyBytes {
			return refuse(CodeTooLarge, c.name+" has a key that is too long", len(key), fmt.Sprintf("at most %d bytes", maxKeyBytes))
		}
		for _, s := range seen {
			if s == key {
				return refuse(c.code, c.name+" repeats a key", quote(key), "every key once")
			}
		}
		if len(seen) == most {
			return refuse(CodeTooLarge, c.name+" has too many keys", "more", fmt.Sprintf("at most %d", most))
		}
		seen = append(seen, key)
		if err := c.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
		if c.is(',') {
			continue
		}
		return c.expect('}')
	}
}

// str reads a string into memory of its own.
func (c *cursor) str() (string, error) {
	if !c.is('"') {
		return "", c.bad("a string")
	}
	start, escaped := c.at, false
	for ; c.at < len(c.text); c.at++ {
		switch b := c.text[c.at]; {
		case b == '"':
			raw := c.text[start:c.at]
			c.at++
			if !escaped {
				return string(raw), nil
			}
			return c.unescape(c.text[start-1 : c.at])
		case b == '\\':
			escaped = true
			c.at++ // whatever follows is not the closing quote
		case b < ' ':
			return "", c.bad("a string without raw control characters")
		}
	}
	c.at = len(c.text)
	return "", c.bad("a closing quote")
}

// unescape decodes a quoted string. A lone surrogate, which encoding/json would turn into U+FFFD, is refused.
func (c *cursor) unescape(quoted []byte) (string, error) {
	const replaced = string(utf8.RuneError)
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil || strings.Count(s, replaced) > strings.Count(string(quoted), replaced) {
		return "", refuse(c.code, c.name+" holds a string with a bad escape", quote(string(quoted)), "a JSON string")
	}
	return s, nil
}

// number reads the text of a JSON number.
func (c *cursor) number() (string, error) {
	c.space()
	start := c.at
	for c.at < len(c.text) && strings.IndexByte("+-.0123456789eE", c.text[c.at]) >= 0 {
		c.at++
	}
	raw := c.text[start:c.at]
	if len(raw) == 0 || len(raw) > 64 || !json.Valid(raw) {
		c.at = start
		return "", c.bad("a number")
	}
	return string(raw), nil
}

// boolean reads true or false.
func (c *cursor) boolean() (bool, error) {
	c.space()
	rest := string(c.text[c.at:min(c.at+5, len(c.text))])
	switch {
	case strings.HasPrefix(rest, "true"):
		c.at += 4
		return true, nil
	case rest == "false":
		c.at += 5
		return false, nil
	}
	return false, c.bad("true or false")
}
