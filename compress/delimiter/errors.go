package delimiter

import "fmt"

// Codes of [Error].
const (
	CodeBad         = "tokenizer.bad"         // not a tokenizer.json, or one that contradicts itself
	CodeUnsupported = "tokenizer.unsupported" // a kind of tokenizer that this package does not decode
	CodeTooLarge    = "tokenizer.too_large"   // over MaxFileBytes or MaxVocabulary
	CodeUnreadable  = "tokenizer.unreadable"  // the file cannot be opened or read
)

// Error says why a tokenizer gives no table. All codes are final for the same file.
type Error struct {
	code string
	msg  string
	err  error
}

// Code is the stable name of the fault, one of the Code constants.
func (e *Error) Code() string  { return e.code }
func (e *Error) Error() string { return e.msg }
func (e *Error) Unwrap() error { return e.err }

func fail(code, format string, args ...any) error {
	return &Error{code: code, msg: fmt.Sprintf(format, args...)}
}

func wrap(code string, err error, what string) error {
	return &Error{code: code, msg: what + ": " + err.Error(), err: err}
}
