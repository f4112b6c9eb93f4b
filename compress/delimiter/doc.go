// Package delimiter says which tokens of a model's texts end a sentence, a clause or a line, so that a page can be cut into
// chunks where its text pauses.
//
// It reads a Hugging Face tokenizer.json once, turns every vocabulary entry into the text it stands for and marks it:
// [Sentence] for . ! ? anywhere in the text, [Clause] for , ; : and [Line] for a line separator, and for what other scripts
// write in their place: by Unicode's properties Sentence_Terminal and Terminal_Punctuation, and a short list of marks that
// have neither. In scripts without spaces between words (Thai, Lao, Khmer ...) a space between two letters ends a clause.
// [Table.MarkBoundary] reads a text over the borders of its tokens, so that a mark counts whatever pieces its bytes come in.
//
// Supported are byte-level BPE (GPT-2, Llama 3, Qwen), BPE and Unigram with the metaspace "▁" and byte fallback <0xNN>
// (Llama 2, Mistral, Gemma, T5) and plain BPE; anything else is refused with a code, never guessed. A [Cache] keeps the
// tables of the models in use.
package delimiter
