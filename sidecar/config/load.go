package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/semproxy/semproxy/policy/strict"
)

// Sources are where values come from, apart from the defaults.
type Sources struct {
	Env   []string       // "NAME=value", as os.Environ gives
	Flags *pflag.FlagSet // parsed, with the flags of RegisterFlags; nil: none
}

// Loaded is a valid configuration and where its values came from.
type Loaded struct {
	Config

	File    string // the YAML file read; empty: none
	keys    []Key
	origins map[string]string // by path: file:line, variable or flag
	doc     *strict.Doc       // of File; nil: none
}

// Load merges the sources and validates the result. The error joins every problem found; each is a [*strict.Error] that
// names the file and line, the variable or the flag that is to be repaired.
func Load(s Sources) (*Loaded, error) {
	l, problems := merge(s)
	problems = append(problems, l.validate(problems)...)
	if len(problems) > 0 {
		return nil, strict.Join(problems)
	}
	return l, nil
}

// Origin says where the value at path came from: "semproxy.yaml:14", "SEMPROXY_NATS_URL", "--nats-url" or "default".
// What is inside a list came from where the list did.
func (l *Loaded) Origin(path string) string {
	key, _, _ := strings.Cut(path, "[")
	if origin, ok := l.origins[key]; ok {
		return origin
	}
	return "default"
}

// Errorf builds a problem with the value at path, for what shows only when the value is used.
func (l *Loaded) Errorf(path, format string, args ...any) *strict.Error {
	origin := l.Origin(path)
	if key, _, _ := strings.Cut(path, "["); l.doc != nil && l.doc.Has(key) && origin == l.doc.Where(key) {
		return l.doc.Errorf(path, format, args...)
	}
	return &strict.Error{File: origin, Path: path, Problem: fmt.Sprintf(format, args...)}
}

// merge lays the sources over each other and reports values that cannot be read.
func merge(s Sources) (*Loaded, []*strict.Error) {
	l := &Loaded{Config: Default(), keys: Keys(), origins: make(map[string]string)}
	env, problems := environment(s.Env, l.keys)

	l.File = env[fileEnv]
	if s.Flags != nil {
		if f := s.Flags.Lookup(fileFlag); f != nil && f.Changed {
			l.File = f.Value.String()
		}
	}
	if l.File != "" {
		problems = append(problems, l.readFile()...)
	}
	for _, k := range l.keys {
		if value, ok := env[k.Env]; ok {
			problems = append(problems, l.set(k, value, k.Env)...)
		}
		if s.Flags == nil {
			continue
		}
		if f := s.Flags.Lookup(k.Flag); f != nil && f.Changed {
			problems = append(problems, l.set(k, f.Value.String(), "--"+k.Flag)...)
		}
	}
	for _, r := range removed {
		if s.Flags != nil && s.Flags.Changed(flagOf(r.path)) {
			problems = append(problems, r.set("--"+flagOf(r.path)))
		}
	}
	return l, problems
}

func (l *Loaded) readFile() []*strict.Error {
	data, err := readBounded(l.File)
	if err != nil {
		return []*strict.Error{{File: l.File, Problem: "cannot be read: " + reason(err)}}
	}
	doc, err := strict.Decode(l.File, data, &l.Config)
	l.doc = doc
	for _, k := range l.keys {
		if doc.Has(k.Path) {
			l.origins[k.Path] = doc.Where(k.Path)
		}
	}
	return nameRemoved(strict.Problems(err))
}

// readBounded reads one byte more than strict accepts, so that it can tell a file that is too long.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, strict.MaxBytes+1))
}

// reason is why a file could not be opened, without its name, which the problem has already.
func reason(err error) string {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return err.Error()
}

// set gives key k the value that source, a variable or a flag, has for it.
func (l *Loaded) set(k Key, value, source string) []*strict.Error {
	l.origins[k.Path] = source
	err := setText(k.field(&l.Config), value, source, k.Path)
	if err == nil {
		return nil
	}
	if inside := strict.Problems(err); len(inside) > 0 {
		for _, e := range inside {
			e.Line = 0 // a variable has no lines
		}
		return inside
	}
	problem := err.Error()
	if !k.Secret {
		problem += fmt.Sprintf(", got %.80q", value)
	}
	return []*strict.Error{{File: source, Path: k.Path, Problem: problem}}
}
