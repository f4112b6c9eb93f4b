package bpe

import "fmt"

// Error says what a tokenizer.json asks for that the encoder does not do, or what is wrong with it.
type Error struct{ msg string }

// Code is "eval.tokenizer".
func (e *Error) Code() string  { return "eval.tokenizer" }
func (e *Error) Error() string { return "tokenizer.json: " + e.msg }

func bad(format string, args ...any) error { return &Error{msg: fmt.Sprintf(format, args...)} }
