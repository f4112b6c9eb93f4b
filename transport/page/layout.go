package page

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Fingerprint names an engine's KV layout, for the metadata value "layout". Two engines whose bytes could be read
// differently must get different fingerprints: order is the order of the axes as the engine keeps them (such as
// "BHTD"), dims are the sizes that fix the layout (block size, heads, head dim ...), version is the engine's.
// The readable part helps a person; the twelve hex digits cover every argument, whatever characters it holds.
func Fingerprint(engine, version, order string, dims ...int) string {
	sizes := make([]string, len(dims))
	for i, d := range dims {
		sizes[i] = strconv.Itoa(d)
	}
	h := sha256.New()
	for _, part := range append([]string{engine, version, order}, sizes...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	parts := []string{engine, version, order}
	if len(sizes) > 0 {
		parts = append(parts, strings.Join(sizes, "x"))
	}
	return strings.Join(append(parts, hex.EncodeToString(h.Sum(nil)[:6])), ".")
}

// CheckLayout refuses, with page.layout, a page of another layout than want. An empty want expects nothing.
func (p *Page) CheckLayout(want string) error {
	if want == "" || p.Layout == want {
		return nil
	}
	return refuse(CodeLayout, `metadata "layout" is another engine layout than the one configured`, quote(p.Layout), quote(want))
}
