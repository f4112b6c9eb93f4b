// Package bpe turns text into token ids as a Hugging Face tokenizer.json of type BPE says: plain (one symbol a character),
// byte-level (GPT-2, Llama 3, Qwen) and the converted SentencePiece kind (Llama 2, Mistral).
//
// Tokens beside the vocabulary, such as <|im_start|>, are found in the text before anything is split. It is an encoder for
// measuring: a split pattern that Go's regexp cannot express is refused rather than approximated. The one
// lookahead that the published patterns use, \s+(?!\S), is emulated exactly.
package bpe
