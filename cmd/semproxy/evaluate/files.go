package evaluate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/semproxy/semproxy/eval"
	"github.com/semproxy/semproxy/eval/bpe"
	"github.com/semproxy/semproxy/eval/embedded"
)

// openModel maps the weights of a folder as Hugging Face lays it out. The model must not be used after closeModel.
func openModel(dir string) (m *eval.Model, closeModel func(), err error) {
	if dir == evalModel {
		m, err = embedded.Model()
		return m, func() {}, err
	}
	if _, err := os.Stat(filepath.Join(dir, "config.json")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, noModel(dir)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, nil, err
	}
	config, err := eval.ParseConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	if whole, err := filepath.Abs(dir); err == nil {
		config.Name = filepath.Base(whole)
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

// load reads the cases and says which tokens of a text end a clause.
func (f *evalFlags) load(m *eval.Model) (cases []eval.Case, boundary func([]int32) []byte, err error) {
	path, err := f.tokenizerPath()
	if err != nil {
		return nil, nil, err
	}
	if path != "" {
		table, err := loadTable(path)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		boundary = func(ids []int32) []byte {
			return table.MarkBoundary(nil, len(ids), func(i int) int64 { return int64(ids[i]) })
		}
	}
	if f.text != "" || len(f.paths) > 0 {
		if cases, err = f.windowCases(m, path); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.about(), err)
		}
	}
	if f.recall != "" {
		data, err := readDefault(f.recall)
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
	case m.Config.Context > 0 && f.context+f.follow > m.Config.Context && !f.shrink:
		return nil, fmt.Errorf("--context and --follow make %d tokens, the model's context is %d", f.context+f.follow, m.Config.Context)
	}
	if most := m.Config.Context; most > 0 && f.context+f.follow > most {
		f.context = most - f.follow
		f.notes = append(f.notes, fmt.Sprintf("the model's context is %d tokens: windows have %d and %d", most, f.context, f.follow))
	}
	texts, err := f.texts()
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
	if err := f.fit(texts, len(first)); err != nil {
		return nil, err
	}
	cases := eval.Windows(texts, first, f.context, f.follow, f.windows)
	if len(cases) == 0 {
		return nil, fmt.Errorf("no text has the %d tokens of a window, the longest has %d", f.context+f.follow, longest(texts))
	}
	return f.quick(cases), nil
}

func loadEncoder(path string) (*bpe.Encoder, error) {
	if path == "" {
		return nil, errors.New("the model has no tokenizer.json: give --tokenizer, or token ids (\"ids\") instead of text")
	}
	data, err := readDefault(path)
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
