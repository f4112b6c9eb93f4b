package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// identity is what a page and its cores say about themselves in the same metadata keys.
type identity struct {
	model, sequence, layout                          string
	layerFirst, tokenFirst, tokensTotal, page, pages int
}

// metadata takes the known keys out of a blob's metadata one by one and keeps the first fault.
// What is left in m afterwards is Extra.
type metadata struct {
	m   map[string]string
	err error
}

func (r *metadata) fault(code, key, got, want string) {
	if r.err == nil {
		r.err = refuse(code, fmt.Sprintf("metadata %q", key), got, want)
	}
}

// take removes a key that must be there.
func (r *metadata) take(key string) string {
	s, ok := r.m[key]
	if !ok {
		r.fault(CodeBadMetadata, key, "nothing", "a value")
	}
	delete(r.m, key)
	return s
}

// optional removes a key; absent is "".
func (r *metadata) optional(key string) string {
	s := r.m[key]
	delete(r.m, key)
	return s
}

// flag removes a key that has this one value or is absent, and reports which.
func (r *metadata) flag(key, value string) bool {
	s, has := r.m[key]
	delete(r.m, key)
	if has && s != value {
		r.fault(CodeBadMetadata, key, quote(s), quote(value)+" or nothing")
	}
	return has
}

// format demands the one format that the caller reads.
func (r *metadata) format(want string) {
	if got := r.take("format"); r.err == nil && got != want {
		r.fault(CodeBadFormat, "format", quote(got), quote(want))
	}
}

// whole takes a whole number from 0 to 2^31-1.
func (r *metadata) whole(key string) int {
	s := r.take(key)
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		r.fault(CodeBadMetadata, key, quote(s), "a whole number from 0 to 2^31-1")
	}
	return int(n)
}

func (r *metadata) identity() identity {
	id := identity{
		model: r.take("model"), sequence: r.take("sequence"), layout: r.take("layout"),
		layerFirst: r.whole("layer_first"), tokenFirst: r.whole("token_first"), tokensTotal: r.whole("tokens_total"),
		page: r.whole("page"), pages: r.whole("pages"),
	}
	return id
}

// rest is every key that nobody took, or nil.
func (r *metadata) rest() map[string]string {
	if len(r.m) == 0 {
		return nil
	}
	return r.m
}

// check holds for a blob that is read and for one that is written. tokens is the page's own number of tokens.
func (id identity) check(tokens int) error {
	for _, f := range []struct{ key, value string }{{"model", id.model}, {"sequence", id.sequence}, {"layout", id.layout}} {
		if err := checkName(f.key, f.value); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		key   string
		value int
	}{{"layer_first", id.layerFirst}, {"token_first", id.tokenFirst}, {"tokens_total", id.tokensTotal}, {"page", id.page}, {"pages", id.pages}} {
		if f.value < 0 || f.value > math.MaxInt32 {
			return refuse(CodeBadMetadata, fmt.Sprintf("metadata %q", f.key), f.value, "a whole number from 0 to 2^31-1")
		}
	}
	if id.page >= id.pages {
		return refuse(CodeBadMetadata, `metadata "page" is not one of the sequence's pages`, id.page, fmt.Sprintf("less than pages %d", id.pages))
	}
	if last := id.tokenFirst + tokens; last > id.tokensTotal {
		return refuse(CodeBadMetadata, `metadata "tokens_total" is less than the page's last token`, id.tokensTotal, fmt.Sprintf("at least token_first %d + tokens %d", id.tokenFirst, tokens))
	}
	return nil
}

func (id identity) put(m map[string]string) {
	m["model"], m["sequence"], m["layout"] = id.model, id.sequence, id.layout
	m["layer_first"], m["token_first"] = strconv.Itoa(id.layerFirst), strconv.Itoa(id.tokenFirst)
	m["tokens_total"] = strconv.Itoa(id.tokensTotal)
	m["page"], m["pages"] = strconv.Itoa(id.page), strconv.Itoa(id.pages)
}

// checkName refuses an identifier that is empty, long, or would break a log line.
func checkName(key, value string) error {
	if value == "" || len(value) > maxIDBytes || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return refuse(CodeBadMetadata, fmt.Sprintf("metadata %q", key), quote(value), fmt.Sprintf("1 to %d bytes of printable text", maxIDBytes))
	}
	return nil
}

// putExtra adds the caller's own metadata; it may not pass for the format's.
func putExtra(m, extra map[string]string, reserved func(key string) bool) error {
	for key, value := range extra {
		if _, taken := m[key]; taken || reserved(key) {
			return refuse(CodeBadMetadata, "an extra metadata key is the format's own", quote(key), "another key")
		}
		m[key] = value
	}
	return nil
}
