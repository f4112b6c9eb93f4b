//go:build race || purego

package pipeline_test

// slower is how many times as long plain loops may take, and so may those that the race detector watches.
const slower = 10
