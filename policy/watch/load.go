package watch

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

// MaxFiles bounds the policy files of a directory.
const MaxFiles = 256

// LoadFiles reads policy files in the order given; a directory stands for its files (LoadDir). Names in messages are the
// paths as given.
func LoadFiles(paths ...string) ([]policy.Source, error) {
	var all []policy.Source
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		if info.IsDir() {
			sources, err := LoadDir(path)
			if err != nil {
				return nil, err
			}
			all = append(all, sources...)
			continue
		}
		source, err := load(path, info)
		if err != nil {
			return nil, err
		}
		all = append(all, source)
	}
	return all, nil
}

// LoadDir reads the files *.yaml and *.yml of a directory, sorted by name, links followed. Names that begin with a dot and
// subdirectories are left out, so a mounted ConfigMap, whose files are links into ..data, is read once. A directory without
// such a file is an error.
func LoadDir(dir string) ([]policy.Source, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	var all []policy.Source
	for _, entry := range entries {
		name := entry.Name()
		if ext := filepath.Ext(name); strings.HasPrefix(name, ".") || (ext != ".yaml" && ext != ".yml") {
			continue
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		if info.IsDir() {
			continue
		}
		if len(all) == MaxFiles {
			return nil, fmt.Errorf("read policy: %s has more than %d files", dir, MaxFiles)
		}
		source, err := load(path, info)
		if err != nil {
			return nil, err
		}
		all = append(all, source)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read policy: %s has no file *.yaml or *.yml", dir)
	}
	return all, nil
}

// load reads one byte more than is allowed at most, so that the compiler can say that it is too much.
func load(path string, info os.FileInfo) (policy.Source, error) {
	if !info.Mode().IsRegular() {
		return policy.Source{}, fmt.Errorf("read policy: %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return policy.Source{}, fmt.Errorf("read policy: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing can be lost
	data, err := io.ReadAll(io.LimitReader(f, strict.MaxBytes+1))
	if err != nil {
		return policy.Source{}, fmt.Errorf("read policy: %w", err)
	}
	return policy.Source{Name: path, Data: data}, nil
}
