//go:build !race && !purego

package pipeline_test

const slower = 1
