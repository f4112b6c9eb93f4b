// Package policies carries the example policies inside the binary: the one that the demo runs and the annotated one that a
// person starts from. The files beside this one are the same bytes.
package policies

import _ "embed" // for the files

// Demo is demo.yaml: the tenants acme, globex and initech with three ways to compress, and unknown with none.
//
//go:embed demo.yaml
var Demo []byte

// Example is example.yaml: every key of the format, explained.
//
//go:embed example.yaml
var Example []byte
