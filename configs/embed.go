// Package configs carries the files beside it inside the binary: the pages that the demo sends and the annotated default
// configuration. The policies have a package of their own, configs/policies.
package configs

import (
	"embed"
	"io/fs"
)

//go:embed demo/tokenizer.json demo/*.page.safetensors demo/*.expected.safetensors
var demo embed.FS

// Service is semproxy.yaml: every key of the service's configuration with its default and what it does. Read only.
//
//go:embed semproxy.yaml
var Service []byte

// Demo holds the demo's files at its root: NAME.page.safetensors, a page in the wire format; NAME.expected.safetensors, what
// the reference makes of it; tokenizer.json, the model's vocabulary. NAME is one of [Pages]. The text is in the public domain.
func Demo() fs.FS {
	sub, err := fs.Sub(demo, "demo")
	if err != nil {
		panic("configs: " + err.Error()) // only for an invalid folder name
	}
	return sub
}

// Pages lists the names of the demo's pages, in order of length.
func Pages() []string { return []string{"kjv", "kjv_facts", "kjv_long"} }
