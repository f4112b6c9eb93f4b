package eval

import "fmt"

// Error says what is wrong with a model, a method or a data file. It is final: the same input fails again.
type Error struct {
	code, msg string
}

// Code is the stable name of the fault: "eval.model", "eval.method", "eval.data".
func (e *Error) Code() string  { return e.code }
func (e *Error) Error() string { return e.msg }

func badModel(format string, args ...any) error {
	return &Error{code: "eval.model", msg: fmt.Sprintf(format, args...)}
}

func badMethod(format string, args ...any) error {
	return &Error{code: "eval.method", msg: fmt.Sprintf(format, args...)}
}

func badData(format string, args ...any) error {
	return &Error{code: "eval.data", msg: fmt.Sprintf(format, args...)}
}
