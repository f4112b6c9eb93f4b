// Package bpe is eval/bpe under the path that it had before the evaluation left compress, so that programs written against it
// build. New code imports eval/bpe.
package bpe

import "github.com/semproxy/semproxy/eval/bpe"

// Encoder is that of eval/bpe.
type Encoder = bpe.Encoder

// Error is that of eval/bpe.
type Error = bpe.Error

// New makes an encoder of a tokenizer.json.
func New(data []byte) (*Encoder, error) { return bpe.New(data) }
