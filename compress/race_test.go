//go:build race

package compress_test

// raced says that the race detector is on, which makes the plain loops ten times as slow.
const raced = true
