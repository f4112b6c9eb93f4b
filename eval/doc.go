// Package eval measures what compression costs a model: a plain Go forward pass of Llama-style models, the methods to
// compare, and the protocol that compares them.
//
// A context is prefilled, its cache is compressed by a [Method] at a ratio, and the text that follows is teacher-forced
// through the model: new tokens see the cores (with their bias) and each other, exactly. Three things are read off:
// perplexity against the full cache, the share of facts that are still recalled digit by digit, and the error of the
// attention outputs. [Run] does that over many cases; [Model] is the forward pass and can be used alone.
//
// The package does no I/O but through the io.Writer and the bytes that it is given. Weights stay in the element type of
// their file and are widened block by block, so that a mapped file of many gigabytes needs no copy.
package eval
