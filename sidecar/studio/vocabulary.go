package studio

import (
	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/configs"
)

// Vocabulary is that of the demo's pages.
func Vocabulary() (*delimiter.Table, error) {
	f, err := configs.Demo().Open("tokenizer.json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return delimiter.Load(f)
}

// Words tells what token ids say, for the demo's model and for those of the configuration.
func Words(known func(model string) (func(int64) (string, bool), bool, error), demo *delimiter.Table) func(model string) (func(int64) (string, bool), bool) {
	return func(model string) (func(int64) (string, bool), bool) {
		if text, ok, err := known(model); err == nil && ok {
			return text, true
		}
		if model == configs.DemoModel {
			return demo.Text, true
		}
		return nil, false
	}
}
