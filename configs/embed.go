// Package configs carries the files beside it inside the binary: the pages that the demo sends and the annotated default
// configuration. The policies have a package of their own, configs/policies.
package configs

import (
	"embed"
	"io/fs"
)

// DemoModel is the name of the model of the demo's pages, which is also the one of [Eval].
const DemoModel = "tinylm"

//go:embed demo/tokenizer.json demo/*.page.safetensors demo/*.expected.safetensors
var demo embed.FS

//go:embed eval/config.json eval/model.safetensors eval/text.jsonl eval/recall.jsonl
var evaluation embed.FS

// Eval holds what eval runs without further files, at its root: config.json and model.safetensors, a small model in the layout of
// Hugging Face; text.jsonl and recall.jsonl, what it is measured on. Its tokenizer is the demo's.
func Eval() fs.FS { return below(evaluation, "eval") }

// Service is semproxy.yaml: every key of the service's configuration with its default and what it does. Read only.
//
//go:embed semproxy.yaml
var Service []byte

// Demo holds the demo's files at its root: NAME.page.safetensors, a page in the wire format; NAME.expected.safetensors, what
// the reference makes of it; tokenizer.json, the model's vocabulary. NAME is one of [Pages]. The text is in the public domain.
func Demo() fs.FS {
	return below(demo, "demo")
}

func below(files fs.FS, folder string) fs.FS {
	sub, err := fs.Sub(files, folder)
	if err != nil {
		panic("configs: " + err.Error()) // only for an invalid folder name
	}
	return sub
}

// Pages lists the names of the demo's pages, in order of length.
func Pages() []string { return []string{"kjv", "kjv_facts", "kjv_long"} }
