package evaluate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/eval"
	"github.com/semproxy/semproxy/sidecar/studio"
)

// choose settles what is run on what, and refuses what can be refused before a model is loaded.
func (f *evalFlags) choose(cmd *cobra.Command, args []string) error {
	set := cmd.Flags().Changed
	if !slices.Contains(show.Forms, f.output) {
		f.out, f.output = f.output, show.Table
	}
	if len(args) > 0 && set("text") {
		return exit.UsageError{Err: errors.New("give texts as arguments or with --text, not both")}
	}
	f.paths = args
	f.mine = len(args) > 0 || set("text") && f.text != ""
	f.shrink = !set("context")
	if (f.mine || f.model != evalModel) && !set("recall") {
		f.recall = "" // its token ids are those of the default model
	}
	if f.mine && !set("methods") { // a short list: a model of one's own takes minutes for the long one
		f.methods = []string{"weighted", "weighted+fp8", "semantic", "window"}
	}
	if f.mine && !set("ratios") {
		f.ratios = []float64{0.5, 0.25}
	}
	comp := compress.New(1)
	defer comp.Close()
	for _, spec := range f.specs() {
		if _, err := eval.Build(spec, comp); err != nil {
			return err
		}
	}
	for _, p := range f.paths {
		if p == "-" {
			continue
		}
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	return nil
}

// specs are the methods as they are run.
func (f *evalFlags) specs() []string {
	all := slices.Clone(f.methods)
	if !f.proportional {
		for i := range all {
			all[i] += "+nobias"
		}
	}
	return all
}

// about names the texts.
func (f *evalFlags) about() string {
	switch {
	case len(f.paths) > 0:
		return strings.Join(f.paths, ", ")
	case f.text == evalText:
		return "the program's own texts"
	case f.text == "":
		return "no texts"
	}
	return f.text
}

// noModel says what a folder lacks.
func noModel(dir string) error {
	if found, _ := filepath.Glob(filepath.Join(dir, "*.gguf")); len(found) > 0 || strings.HasSuffix(dir, ".gguf") {
		return exit.RefusedError{Text: fmt.Sprintf("%s has GGUF weights, which eval does not read: convert them to a folder of Hugging Face with transformers: "+
			`AutoModelForCausalLM.from_pretrained(DIR, gguf_file=FILE).save_pretrained(OUT), and the tokenizer alike (docs/how-to/evaluate.md)`, dir)}
	}
	if _, err := os.Stat(dir); err != nil && strings.Count(dir, "/") == 1 && !strings.HasPrefix(dir, ".") {
		return exit.RefusedError{Text: fmt.Sprintf("there is no folder %s; if that is a name on the hub, download it first: huggingface-cli download %s --local-dir DIR", dir, dir)}
	}
	return exit.RefusedError{Text: fmt.Sprintf("%s has no config.json: --model wants a folder of Hugging Face with config.json, tokenizer.json and model.safetensors", dir)}
}

// readDefault reads a file, or what the program has of its name.
func readDefault(name string) ([]byte, error) {
	switch name {
	case evalText, evalRecall:
		return fs.ReadFile(configs.Eval(), filepath.Base(name))
	case evalTokenizer:
		return fs.ReadFile(configs.Demo(), filepath.Base(name))
	}
	return os.ReadFile(name)
}

func loadTable(path string) (*delimiter.Table, error) {
	if path == evalTokenizer {
		return studio.Vocabulary()
	}
	return delimiter.LoadFile(path)
}

// texts reads what is to be measured.
func (f *evalFlags) texts() ([]eval.Text, error) {
	if len(f.paths) == 0 {
		data, err := readDefault(f.text)
		if err != nil {
			return nil, err
		}
		return parseText(f.text, data)
	}
	var out []eval.Text
	for _, p := range f.paths {
		some, err := readText(p)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// textEndings are the endings of a folder's files that are read.
var textEndings = []string{".txt", ".md", ".markdown", ".rst", ".jsonl", ".text"}

func readText(path string) ([]eval.Text, error) {
	if path == "-" {
		data, err := readAll("standard input", os.Stdin)
		if err != nil {
			return nil, err
		}
		return parseText("standard input", data)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // only read
		data, err := readAll(path, file)
		if err != nil {
			return nil, err
		}
		return parseText(path, data)
	}
	var out []eval.Text
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != path:
			return filepath.SkipDir
		case d.IsDir() || !slices.Contains(textEndings, strings.ToLower(filepath.Ext(name))):
			return nil
		}
		some, err := readText(name)
		out = append(out, some...)
		return err
	})
	if err == nil && len(out) == 0 {
		return nil, fmt.Errorf("%s: no file in it ends in one of %s", path, strings.Join(textEndings, ", "))
	}
	return out, err
}

// maxText bounds one text, in bytes: far more than is measured of it. What is no file may never end.
const maxText = 256 << 20

func readAll(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && len(data) > maxText {
		err = exit.RefusedError{Text: fmt.Sprintf("%s: eval.data: a text has at most %d MiB: give a part of it", name, maxText>>20)}
	}
	return data, err
}

// parseText takes JSONL by its name, or where every line is an object; everything else is a text.
func parseText(name string, data []byte) ([]eval.Text, error) {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, fmt.Errorf("%s: is no text in UTF-8", name)
	}
	if strings.HasSuffix(strings.ToLower(name), ".jsonl") || objects(data) {
		texts, err := eval.ParseTexts(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i := range texts {
			if texts[i].Text == "" && len(texts[i].IDs) == 0 {
				return nil, fmt.Errorf("%s: object %d has neither text nor ids, only %s", name, i+1, keysOf(data, i))
			}
		}
		return texts, nil
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%s: is empty", name)
	}
	return []eval.Text{{Source: filepath.Base(name), Text: string(data)}}, nil
}

// objects says whether every line that is not empty is a JSON object.
func objects(data []byte) bool {
	some := false
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] != '{' || !json.Valid(line) {
			return false
		}
		some = true
	}
	return some
}

// keysOf lists the keys of an object.
func keysOf(data []byte, at int) string {
	i := 0
	for line := range bytes.Lines(data) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if i == at {
			var m map[string]any
			_ = json.Unmarshal(line, &m)
			var keys []string
			for k := range m {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			if len(keys) == 0 {
				return "nothing"
			}
			return strings.Join(keys, ", ")
		}
		i++
	}
	return "nothing"
}

func longest(texts []eval.Text) int {
	n := 0
	for i := range texts {
		n = max(n, len(texts[i].IDs))
	}
	return n
}

// The least that says something: a context that can be merged, and tokens after it.
const leastContext, leastFollow = 64, 16

// fit shrinks the windows to what the longest text has, where the caller did not say how long they are.
func (f *evalFlags) fit(texts []eval.Text, first int) error {
	has := longest(texts) + first
	if has >= f.context+f.follow || !f.shrink {
		return nil
	}
	if has < leastContext+leastFollow {
		return fmt.Errorf("the longest text has %d tokens; give one of %d or more (about %d letters)", has, leastContext+leastFollow, 4*(leastContext+leastFollow))
	}
	f.follow = min(f.follow, max(leastFollow, has/5))
	f.context = has - f.follow
	f.notes = append(f.notes, fmt.Sprintf("the longest text has %d tokens, so windows have %d of context and %d that follow: few, so the figures are rough", has, f.context, f.follow))
	return nil
}

// progress shows a bar with the time that is left on a terminal, else a line every tenth of the cases or every ten seconds.
func (f *evalFlags) progress(w io.Writer, plan *eval.Plan, cases int, start time.Time) {
	steps := plan.Steps(cases)
	var mu sync.Mutex
	done := 0
	if file, ok := w.(*os.File); ok && show.IsTerminal(file) {
		bar := progressbar.NewOptions(steps, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(fmt.Sprintf("%d cases", cases)),
			progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
		_ = bar.RenderBlank()
		plan.Step = func() { _ = bar.Add(1) }
		return
	}
	said := start
	plan.Step = func() {
		mu.Lock()
		defer mu.Unlock()
		done++
		if now := time.Now(); now.Sub(said) >= 10*time.Second && done < steps {
			said = now
			left := time.Duration(float64(now.Sub(start)) / float64(done) * float64(steps-done))
			fmt.Fprintf(w, "%d %% in %s, about %s left\n", 100*done/steps, show.Duration(now.Sub(start)), show.Duration(left))
		}
	}
	plan.Progress = func(done, total int) {
		if done == total || done%max(total/10, 1) == 0 {
			fmt.Fprintf(w, "%d of %d cases, %s\n", done, total, show.Duration(time.Since(start)))
		}
	}
}

// evalVerdict says in words what the figures mean.
func evalVerdict(r *eval.Report, mine bool) []string {
	where := "on these texts"
	if mine {
		where = "on your text"
	}
	var out []string
	said := map[float64]bool{}
	for i := range r.Rows { // the first method at each ratio: the one that is recommended, or asked for first
		row := &r.Rows[i]
		if row.Method == "full" || said[row.Ratio] || row.Relative == nil {
			continue
		}
		said[row.Ratio] = true
		cost, sigma := 100*(*row.Relative-1), 0.0
		if row.Deviation != nil {
			sigma = 100 * *row.Deviation
		}
		words := fmt.Sprintf("%s of the slots (%.0f %% of the bytes) costs %.1f %% +- %.1f of perplexity %s, by %s", share(row.Ratio), 100*row.Bytes, max(cost, 0), sigma, where, row.Method)
		if row.Recall != nil {
			words += fmt.Sprintf(", and %.0f %% of the facts are recalled", 100**row.Recall)
		}
		switch {
		case r.Windows < 4:
			words += fmt.Sprintf(". That rests on %s of text only: give more to be sure", show.Plural(r.Windows, "window"))
		case cost <= 2*sigma:
			words += ". That is within the noise: no loss can be seen"
		case cost < 1:
			words += ": little"
		case cost < 5:
			words += ": try it on your own tasks before you use it"
		default:
			words += ": too much for most uses; keep more"
		}
		out = append(out, strings.ToUpper(words[:1])+words[1:]+".")
	}
	return out
}

// share is a ratio in words.
func share(ratio float64) string {
	switch ratio {
	case 0.5:
		return "half"
	case 0.25:
		return "a quarter"
	case 0.75:
		return "three quarters"
	case 0.125:
		return "an eighth"
	}
	return fmt.Sprintf("%.0f %%", 100*ratio)
}
