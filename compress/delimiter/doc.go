// Package delimiter says which entries of a model's vocabulary end a sentence, a clause or a line, so that a page can be
// cut into chunks where its text pauses.
//
// It reads a Hugging Face tokenizer.json once, turns every vocabulary entry into the text it stands for and marks it:
// [Sentence] for . ! ? anywhere in the text, [Clause] for , ; : and [Line] for a newline. Supported are byte-level BPE
// (GPT-2, Llama 3, Qwen), BPE and Unigram with the metaspace "▁" and byte fallback <0xNN> (Llama 2, Mistral, Gemma, T5) and
// plain BPE; anything else is refused with a code, never guessed. A [Cache] keeps the tables of the models in use.
//
// Only these ASCII marks count, as the algorithm's definition has it; a text without them is cut by length alone.
package delimiter
