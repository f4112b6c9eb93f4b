package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/compress/eval"
	"github.com/semproxy/semproxy/compress/eval/bpe"
)

// openModel maps the weights of a folder as Hugging Face lays it out. The model must not be used after closeModel.
func openModel(dir string) (m *eval.Model, closeModel func(), err error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, nil, err
	}
	config, err := eval.ParseConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	files, err := weightFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	var unmap []func()
	closeAll := func() {
		for _, f := range unmap {
			f()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	weights := eval.Safetensors{}
	for _, file := range files {
		blob, done, err := mapFile(filepath.Join(dir, file))
		if err != nil {
			return nil, nil, err
		}
		unmap = append(unmap, done)
		if err := weights.Add(file, blob); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	if m, err = eval.Load(config, weights); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, closeAll, nil
}

// weightFiles are the names in the folder: model.safetensors, or the shards that the index names.
func weightFiles(dir string) ([]string, error) {
	index, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return []string{"model.safetensors"}, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := eval.Shards(index)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, file := range files {
		if !filepath.IsLocal(file) {
			return nil, fmt.Errorf("%s: the index names %q, which is outside the folder", dir, file)
		}
	}
	return files, nil
}

// load reads the cases and says which tokens end a clause.
func (f *evalFlags) load(m *eval.Model) (cases []eval.Case, boundary func(int32) bool, err error) {
	path, err := f.tokenizerPath()
	if err != nil {
		return nil, nil, err
	}
	if path != "" {
		table, err := delimiter.LoadFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		boundary = func(id int32) bool { return table.Class(int64(id)) != delimiter.None }
	}
	if f.text != "" {
		if cases, err = f.windowCases(m, path); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.text, err)
		}
	}
	if f.recall != "" {
		data, err := os.ReadFile(f.recall)
		if err != nil {
			return nil, nil, err
		}
		recall, err := eval.ParseRecall(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.recall, err)
		}
		cases = append(cases, f.quick(recall)...)
	}
	return cases, boundary, nil
}

// tokenizerPath is empty when the model has no tokenizer.json: its texts must then be token ids.
func (f *evalFlags) tokenizerPath() (string, error) {
	if f.tokenizer != "" {
		return f.tokenizer, nil
	}
	own := filepath.Join(f.model, "tokenizer.json")
	_, err := os.Stat(own)
	switch {
	case err == nil:
		return own, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case f.model == evalModel:
		return evalTokenizer, nil
	}
	return "", nil
}

// windowCases encodes the texts that have no ids and cuts all into windows.
func (f *evalFlags) windowCases(m *eval.Model, tokenizer string) ([]eval.Case, error) {
	switch {
	case f.context < 1 || f.follow < 2:
		return nil, fmt.Errorf("--context must be at least 1 and --follow at least 2, got %d and %d", f.context, f.follow)
	case m.Config.Context > 0 && f.context+f.follow > m.Config.Context:
		return nil, fmt.Errorf("--context and --follow make %d tokens, the model's context is %d", f.context+f.follow, m.Config.Context)
	}
	data, err := os.ReadFile(f.text)
	if err != nil {
		return nil, err
	}
	texts, err := eval.ParseTexts(data)
	if err != nil {
		return nil, err
	}
	var encoder *bpe.Encoder
	var first []int32
	for i := range texts {
		t := &texts[i]
		if t.IDs != nil || strings.TrimSpace(t.Text) == "" {
			continue
		}
		if encoder == nil {
			if encoder, err = loadEncoder(tokenizer); err != nil {
				return nil, err
			}
			first = encoder.First()
		}
		t.IDs = encoder.Encode(t.Text)
	}
	cases := eval.Windows(texts, first, f.context, f.follow, f.windows)
	if len(cases) == 0 {
		return nil, fmt.Errorf("no text has the %d tokens of a window", f.context+f.follow)
	}
	return f.quick(cases), nil
}

func loadEncoder(path string) (*bpe.Encoder, error) {
	if path == "" {
		return nil, errors.New("the model has no tokenizer.json: give --tokenizer, or token ids (\"ids\") instead of text")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bpe.New(data)
}

// quick keeps the first cases only.
func (f *evalFlags) quick(cases []eval.Case) []eval.Case {
	if f.cases > 0 && len(cases) > f.cases {
		return cases[:f.cases]
	}
	return cases
}
