package compress

import "fmt"

// InputError says why a page cannot be compressed. It is final: the same page fails again.
type InputError struct {
	code, msg string
}

// Code is the stable name of the fault, such as "page.bad_rope".
func (e *InputError) Code() string  { return e.code }
func (e *InputError) Error() string { return e.msg }

func badInput(code, format string, args ...any) error {
	return &InputError{code: code, msg: fmt.Sprintf(format, args...)}
}
