package page

import (
	"fmt"

	"github.com/semproxy/semproxy/codes"
)

// Codes of the package. All are final: the same blob is refused again, so a sender must not retry it.
const (
	CodeTruncated     = codes.PageTruncated     // the blob ends before what its header announces
	CodeBadHeader     = codes.PageBadHeader     // the header is not the JSON that safetensors defines, or leaves holes
	CodeOverlap       = codes.PageOverlap       // two tensors claim the same bytes
	CodeTooLarge      = codes.PageTooLarge      // a length is over its limit
	CodeBadFormat     = codes.PageBadFormat     // the blob is another kind or version
	CodeBadMetadata   = codes.PageBadMetadata   // a metadata value is missing or malformed
	CodeBadRope       = codes.PageBadRope       // the rotary embedding is malformed or of an unknown type
	CodeMissingTensor = codes.PageMissingTensor // a required tensor is absent
	CodeUnknownTensor = codes.PageUnknownTensor // a tensor that the format does not know
	CodeBadShape      = codes.PageBadShape      // a tensor's shape does not fit the page, or its bytes
	CodeBadDType      = codes.PageBadDType      // a tensor's element type is not allowed there
	CodeBadScale      = codes.PageBadScale      // the scales of an FP8 page are missing or unusable
	CodeNotFinite     = codes.PageNotFinite     // a tensor holds NaN or Inf
	CodeBadPositions  = codes.PageBadPositions  // positions are negative, repeat or go back
	CodeBadTokenIDs   = codes.PageBadTokenIDs   // a token id is negative or over 2^31-1
	CodeBadCounts     = codes.PageBadCounts     // counts and dropped tokens do not account for every token exactly once
	CodeEmpty         = codes.PageEmpty         // the page holds no token
	CodeBadChecksum   = codes.PageBadChecksum   // the bytes are not the ones that were hashed
	CodeBadPrefix     = codes.PageBadPrefix     // what a page or a request says of the tokens before it is malformed
	CodeLayout        = codes.PageLayout        // the engine's layout is not the expected one
)

// Error is every error of this package. It is final, never worth a retry.
type Error struct {
	code, what, got, want string
}

// Code is the stable, lower-case dotted code, such as "page.bad_shape".
func (e *Error) Code() string { return e.code }

// Error is one sentence that names the tensor or field, what was found and what was wanted. It is safe to show to the
// sender: it holds no tensor data and at most a short, quoted piece of what the sender wrote.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: got %s, want %s", e.what, e.got, e.want)
}

// refuse builds an Error. got and want are written with fmt.Sprint.
func refuse(code, what string, got, want any) error {
	return &Error{code: code, what: what, got: fmt.Sprint(got), want: fmt.Sprint(want)}
}

// quote writes s for an error message: quoted, and cut so that a hostile value cannot fill a log.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q and %d more bytes", s[:most], len(s)-most)
	}
	return fmt.Sprintf("%q", s)
}
