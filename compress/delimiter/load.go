package delimiter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// What a tokenizer.json may be at most. The largest public ones have 262144 entries in 33 MiB.
const (
	MaxFileBytes  = 64 << 20
	MaxVocabulary = 2 << 20
)

// file is the part of tokenizer.json that matters here. Lists stay raw: their length is checked while they are read.
type file struct {
	AddedTokens  json.RawMessage `json:"added_tokens"`
	PreTokenizer json.RawMessage `json:"pre_tokenizer"`
	Decoder      json.RawMessage `json:"decoder"`
	Model        *struct {
		Type              string          `json:"type"`
		Vocab             json.RawMessage `json:"vocab"`
		ByteFallback      bool            `json:"byte_fallback"`
		MaxCharsPerWord   *int            `json:"max_input_chars_per_word"` // WordPiece only
		ContinuingSubword string          `json:"continuing_subword_prefix"`
	} `json:"model"`
}

// LoadFile is [Load] on the file at path.
func LoadFile(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, wrap(CodeUnreadable, err, "open tokenizer")
	}
	defer func() { _ = f.Close() }() // only read
	t, err := Load(f)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, wrap(e.code, err, path)
		}
		return nil, err
	}
	return t, nil
}

// Load reads a tokenizer.json. Errors are of type [*Error]. The file's length and the number of entries are checked before
// anything of that size is allocated.
func Load(r io.Reader) (*Table, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, wrap(CodeUnreadable, err, "read tokenizer")
	}
	if len(data) > MaxFileBytes {
		return nil, fail(CodeTooLarge, "tokenizer is larger than %d bytes", MaxFileBytes)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, wrap(CodeBad, err, "tokenizer is not valid JSON of the expected form")
	}
	if f.Model == nil {
		return nil, fail(CodeBad, "tokenizer has no model")
	}
	if f.Model.ContinuingSubword != "" {
		return nil, fail(CodeUnsupported, "model with continuing_subword_prefix %.40q is not supported", f.Model.ContinuingSubword)
	}
	steps, err := decoderSteps(f.Decoder, f.PreTokenizer, f.Model.ByteFallback)
	if err != nil {
		return nil, err
	}
	t := new(Table)
	switch kind := modelKind(&f); kind {
	case "BPE":
		err = t.readVocabulary(f.Model.Vocab, steps)
	case "Unigram":
		err = t.readPieces(f.Model.Vocab, steps)
	default:
		err = fail(CodeUnsupported, "model type %.40q is not supported: want BPE or Unigram", kind)
	}
	if err == nil {
		err = t.readAdded(f.AddedTokens, steps)
	}
	if err != nil {
		return nil, err
	}
	if t.Size() == 0 {
		return nil, fail(CodeBad, "tokenizer has an empty vocabulary")
	}
	return t, nil
}

// modelKind names the model's type; old files leave it out.
func modelKind(f *file) string {
	vocab := bytes.TrimSpace(f.Model.Vocab)
	switch {
	case f.Model.Type != "":
		return f.Model.Type
	case f.Model.MaxCharsPerWord != nil:
		return "WordPiece"
	case len(vocab) > 0 && vocab[0] == '[':
		return "Unigram"
	default:
		return "BPE"
	}
}

// readVocabulary reads {"token": id, ...}.
func (t *Table) readVocabulary(raw json.RawMessage, steps []step) error {
	dec, err := open("model.vocab", raw, '{')
	if err != nil {
		return err
	}
	for n := 0; dec.More(); n++ {
		key, err := dec.Token()
		if err != nil {
			return wrap(CodeBad, err, "model.vocab")
		}
		token, _ := key.(string)
		var id *int64
		if err := dec.Decode(&id); err != nil {
			return wrap(CodeBad, err, "model.vocab: id of a token")
		}
		if id == nil {
			return fail(CodeBad, "model.vocab: token %.40q has no id", token)
		}
		if err := checkID("model.vocab", n, *id); err != nil {
			return err
		}
		if !t.set(int(*id), decode(token, steps), false) {
			return fail(CodeBad, "model.vocab: two tokens have the id %d", *id)
		}
	}
	return nil
}

// readPieces reads [["piece", score], ...]; a piece's id is its index.
func (t *Table) readPieces(raw json.RawMessage, steps []step) error {
	dec, err := open("model.vocab", raw, '[')
	if err != nil {
		return err
	}
	for n := 0; dec.More(); n++ {
		if err := checkID("model.vocab", n, int64(n)); err != nil {
			return err
		}
		var piece string
		var score float64
		pair := [2]any{&piece, &score} // elements past the second are dropped, missing ones become nil
		if err := dec.Decode(&pair); err != nil {
			return wrap(CodeBad, err, fmt.Sprintf("model.vocab[%d]", n))
		}
		if pair[0] == nil || pair[1] == nil {
			return fail(CodeBad, "model.vocab[%d]: want a piece and its score", n)
		}
		t.set(n, decode(piece, steps), false)
	}
	return nil
}

// readAdded reads added_tokens, which win over the vocabulary's entry of the same id.
func (t *Table) readAdded(raw json.RawMessage, steps []step) error {
	if isNull(raw) {
		return nil
	}
	dec, err := open("added_tokens", raw, '[')
	if err != nil {
		return err
	}
	for n := 0; dec.More(); n++ {
		var added struct {
			ID      *int64 `json:"id"`
			Content string `json:"content"`
		}
		if err := dec.Decode(&added); err != nil {
			return wrap(CodeBad, err, fmt.Sprintf("added_tokens[%d]", n))
		}
		if added.ID == nil {
			return fail(CodeBad, "added_tokens[%d] has no id", n)
		}
		if err := checkID("added_tokens", n, *added.ID); err != nil {
			return err
		}
		t.set(int(*added.ID), decode(added.Content, steps), true)
	}
	return nil
}

// open starts to read a JSON list or object whose text is already known to be valid.
func open(what string, raw json.RawMessage, kind json.Delim) (*json.Decoder, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != kind {
		return nil, fail(CodeBad, "%s is missing or not of the form %q", what, rune(kind))
	}
	return dec, nil
}

func checkID(what string, n int, id int64) error {
	switch {
	case n >= MaxVocabulary, id >= MaxVocabulary:
		return fail(CodeTooLarge, "%s: more than %d entries", what, MaxVocabulary)
	case id < 0:
		return fail(CodeBad, "%s: negative id %d", what, id)
	}
	return nil
}

func decode(token string, steps []step) string {
	for _, s := range steps {
		token = s(token)
	}
	return token
}
