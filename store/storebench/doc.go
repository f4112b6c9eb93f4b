// Package storebench holds the shared store against the raw client: the same tiles, to the same Redis, in the same run.
// Raw and store take turns every few tenths of a second, so that what else a machine does falls on both.
package storebench
