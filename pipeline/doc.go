// Package pipeline is the life of a page: decode, decide, compress, guard, store, encode. Read pipeline.go first.
//
// It knows nothing of NATS or HTTP: the service, the offline command and the tests run the same code. What it needs from
// the outside (a policy, a compressor, a store, delimiters) it takes as small interfaces.
package pipeline
