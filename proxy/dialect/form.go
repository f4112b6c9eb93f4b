package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"github.com/semproxy/semproxy/codes"
)

// memberArgs is where vLLM lets requests, and forms, name further parameters of its own.
const memberArgs = "vllm_xargs"

// Form passes a body of parts on as it comes, without those that only the proxy may send.
type Form struct {
	parts    *multipart.Reader
	boundary string
	part     *multipart.Part
	out      bytes.Buffer // of boundaries and headers
	some     bool
	done     bool
}

// NewForm reads a multipart/form-data body with the boundary of its media type.
func NewForm(body io.Reader, boundary string) *Form {
	return &Form{parts: multipart.NewReader(body, boundary), boundary: boundary}
}

// Read is part of io.Reader. A body that is no form is an *Error.
func (f *Form) Read(p []byte) (int, error) {
	for {
		switch {
		case f.out.Len() > 0:
			return f.out.Read(p)
		case f.done:
			return 0, io.EOF
		case f.part == nil:
			if err := f.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := f.part.Read(p)
		if errors.Is(err, io.EOF) {
			f.part, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next part that passes.
func (f *Form) next() error {
	for {
		part, err := f.parts.NextRawPart()
		switch {
		case errors.Is(err, io.EOF):
			if !f.some {
				return &Error{http.StatusBadRequest, codes.RequestBadForm, "the body is no form"}
			}
			f.done = true
			fmt.Fprintf(&f.out, "\r\n--%s--\r\n", f.boundary)
			return nil
		case err != nil && strings.HasPrefix(err.Error(), "multipart:"):
			return &Error{http.StatusBadRequest, codes.RequestBadForm, "the body is no form"}
		case err != nil:
			return err
		}
		name, ok := partName(part)
		if !ok {
			return &Error{http.StatusBadRequest, codes.RequestBadForm, "a part of the form has a name that can be read in several ways, or none"}
		}
		if Private(name) || name == memberArgs {
			continue
		}
		if f.some {
			f.out.WriteString("\r\n")
		}
		f.some, f.part = true, part
		fmt.Fprintf(&f.out, "--%s\r\n", f.boundary)
		for _, name := range []string{"Content-Disposition", "Content-Type", "Content-Transfer-Encoding"} { // others say nothing to an engine
			if value := part.Header.Get(name); value != "" {
				fmt.Fprintf(&f.out, "%s: %s\r\n", name, value)
			}
		}
		f.out.WriteString("\r\n")
		return nil
	}
}

// partName is the name of a part, where every reader finds the same: one Content-Disposition, each parameter once, the name in quotes or
// plain, not escaped or encoded.
func partName(part *multipart.Part) (name string, ok bool) {
	values := part.Header["Content-Disposition"]
	if len(values) != 1 {
		return "", false
	}
	kind, params, err := mime.ParseMediaType(values[0])
	plain := strings.ToLower(strings.Join(strings.Fields(values[0]), ""))
	if err != nil || kind != "form-data" || params["name"] == "" || strings.ContainsRune(params["name"], '\\') || strings.Contains(plain, ";name*") {
		return "", false
	}
	return params["name"], strings.Contains(plain, `;name="`+strings.ToLower(strings.Join(strings.Fields(params["name"]), ""))+`"`) || strings.Contains(plain, ";name="+strings.ToLower(params["name"]))
}
