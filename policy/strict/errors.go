package strict

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Error is one problem in one file.
type Error struct {
	File    string // as given to Decode
	Line    int    // 1-based; 0 when the problem belongs to the whole file
	Column  int    // 1-based; 0 when only the line is known
	Path    string // such as tenants.acme.rules[2].profile; empty for the document itself
	Problem string // one sentence without a final stop, with what was found
}

// Error returns "file:line:column: path: problem"; parts that are unknown are left out.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
		if e.Column > 0 {
			s += ":" + strconv.Itoa(e.Column)
		}
	}
	if s != "" {
		s += ": "
	}
	if e.Path != "" {
		s += e.Path + ": "
	}
	return s + e.Problem
}

// Code is the stable code of every problem in a configuration file.
func (e *Error) Code() string { return "config.invalid" }

// Join sorts problems by their places and joins them into one error; nil when there are none.
func Join(problems []*Error) error {
	if len(problems) == 0 {
		return nil
	}
	sorted := slices.Clone(problems)
	slices.SortStableFunc(sorted, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	errs := make([]error, len(sorted))
	for i, p := range sorted {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// Problems returns the problems inside err, in order, however they were joined and wrapped.
func Problems(err error) []*Error {
	switch e := err.(type) { //nolint:errorlint // the tree is walked by hand, so that every branch is visited
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, inner := range e.Unwrap() {
			all = append(all, Problems(inner)...)
		}
		return all
	default:
		return Problems(errors.Unwrap(err))
	}
}

// Doc remembers where each path of a decoded document was written.
type Doc struct {
	file   string
	places map[string]place
	failed []string // paths whose value could not be read
}

// place is where something was written, both 1-based.
type place struct{ line, column int }

// File returns the name given to Decode.
func (d *Doc) File() string { return d.file }

// Has reports whether the document itself names path.
func (d *Doc) Has(path string) bool {
	_, ok := d.places[path]
	return ok
}

// Failed reports whether the value at path, one around it or one inside it could not be read. Later checks of such a value
// would only repeat the problem in other words.
func (d *Doc) Failed(path string) bool {
	return slices.ContainsFunc(d.failed, func(f string) bool { return within(f, path) || within(path, f) })
}

// Line returns the 1-based line of path, or that of its nearest ancestor that was written.
func (d *Doc) Line(path string) int { return d.place(path).line }

func (d *Doc) place(path string) place {
	for {
		if p, ok := d.places[path]; ok || path == "" {
			return p
		}
		path = parent(path)
	}
}

// Where returns "file:line" of path.
func (d *Doc) Where(path string) string {
	return d.file + ":" + strconv.Itoa(d.Line(path))
}

// Errorf builds a problem at path, with the place that belongs to it.
func (d *Doc) Errorf(path, format string, args ...any) *Error {
	p := d.place(path)
	return &Error{File: d.file, Line: p.line, Column: p.column, Path: path, Problem: fmt.Sprintf(format, args...)}
}
