// Package semconv is the vocabulary of semproxy's traces and metrics: the names of spans, attributes and instruments,
// in one place, so that every package and every dashboard says the same word for the same thing. It holds no SDK and
// records nothing. docs/reference/telemetry.md explains each name to its reader; a test keeps the two in step.
package semconv
