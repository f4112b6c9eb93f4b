package config

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// fileFlag is the flag, and fileEnv the variable, that name the YAML file.
const (
	fileFlag = "config"
	fileEnv  = prefix + "CONFIG"
)

// RegisterFlags adds --config and one flag for each key to fs, or for each key that is one of only or, where that ends in a dot, below
// it. The flags hold text; [Load] checks it together with everything else, so that all problems are told at once.
func RegisterFlags(fs *pflag.FlagSet, only ...string) {
	fs.StringP(fileFlag, "c", "", "configuration file, YAML (or "+fileEnv+")")
	for _, k := range Keys() {
		if len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool {
			return k.Path == o || strings.HasSuffix(o, ".") && strings.HasPrefix(k.Path, o)
		}) {
			continue
		}
		def := k.Default
		if k.Kind == "text" && def != "" {
			def = `"` + def + `"`
		}
		f := fs.VarPF(&flagText{kind: k.Kind, text: k.Default}, k.Flag, "", k.Help)
		f.DefValue = def
		if k.Kind == "true|false" {
			f.NoOptDefVal = "true"
		}
	}
	for _, r := range removed { // so that Load can say what became of them
		fs.VarPF(&flagText{kind: "text"}, flagOf(r.path), "", "").Hidden = true
	}
}

// flagText is a flag that accepts any text.
type flagText struct{ kind, text string }

func (f *flagText) String() string     { return f.text }
func (f *flagText) Type() string       { return f.kind }
func (f *flagText) Set(s string) error { f.text = s; return nil }
