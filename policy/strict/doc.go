// Package strict reads one YAML document into a Go struct and accepts nothing that the struct does not name.
//
// Every problem is found in one pass and reported as "file:line: path: problem, got X", so that a person repairs a file
// once and not once per mistake. Unknown keys, duplicate keys, wrong types, keys without a value, tabs, empty files,
// second documents, merge keys and alias bombs are problems, never surprises. The decoder remembers the line of every
// path ([Doc]), so that checks made later (ranges, references) are reported in the same form.
//
// The package is pure: it reads bytes, never files, and writes no logs. A [Doc] is immutable after [Decode] and safe for
// concurrent use.
package strict
