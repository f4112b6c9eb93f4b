package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// part is code of others: a Go module, the Go library or a JavaScript package.
type part struct {
	name, version string
	licences      []string // SPDX identifiers, sorted, once classify has been called
	texts         []text
}

// text is a licence or a notice. Its name is its path in the part.
type text struct {
	name string
	data []byte
}

// legal is how files are called that hold licences, and legalNotice those that hold notices.
var (
	legal       = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)
	legalNotice = regexp.MustCompile(`(?i)^notice([-._].*)?$`)
)

// known is the least share of a licence's text, in percent, that must be words of known licences: the rest may name holders.
const known = 80

// classify finds the licences of the part, and refuses it unless every licence of it is allowed.
func (p *part) classify() error {
	for _, t := range p.texts {
		if legalNotice.MatchString(filepath.Base(t.name)) {
			continue
		}
		found := licensecheck.Scan(t.data)
		if found.Percent < known {
			return fmt.Errorf("%s %s: %s is no licence that is known (%.0f%% of it)", p.name, p.version, t.name, found.Percent)
		}
		for _, m := range found.Match {
			if !slices.Contains(allowed, m.ID) {
				return fmt.Errorf("%s %s: %s is %s, which is not one of %s", p.name, p.version, t.name, m.ID, strings.Join(allowed, ", "))
			}
			p.licences = append(p.licences, m.ID)
		}
	}
	if len(p.licences) == 0 {
		return fmt.Errorf("%s %s: no licence", p.name, p.version)
	}
	slices.Sort(p.licences)
	p.licences = slices.Compact(p.licences)
	return nil
}

// builds are those of the programs and images that a release has.
var builds = []struct{ arch, tags string }{{"amd64", "nomsgpack"}, {"amd64", "nomsgpack,nogpu"}, {"arm64", "nomsgpack"}, {"arm64", "nomsgpack,nogpu"}}

// listed is what "go list" says of a package.
type listed struct {
	Dir    string
	Module *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
}

// linked are the Go library and the modules that the linker takes into cmd/semproxy, by path. A module's licences are those of its
// linked packages: what lies in their folders and above, up to the module's.
func linked(root string) ([]part, error) {
	goroot, err := output(root, nil, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	version, err := output(root, nil, "env", "GOVERSION")
	if err != nil {
		return nil, err
	}
	library := part{name: "Go", version: strings.TrimSpace(string(version))}
	if library.texts, err = textsUp(strings.TrimSpace(string(goroot)), strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	modules := map[string]*part{}
	for _, b := range builds {
		out, err := output(root, []string{"GOOS=linux", "GOARCH=" + b.arch, "CGO_ENABLED=0"}, "list", "-deps", "-json=Dir,Module", "-tags", b.tags, "./cmd/semproxy")
		if err != nil {
			return nil, err
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var l listed
			if err := d.Decode(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if l.Module == nil || l.Module.Main {
				continue
			}
			m := modules[l.Module.Path]
			if m == nil {
				m = &part{name: l.Module.Path, version: l.Module.Version}
				modules[l.Module.Path] = m
			}
			texts, err := textsUp(l.Dir, l.Module.Dir)
			if err != nil {
				return nil, err
			}
			m.texts = append(m.texts, texts...)
		}
	}
	parts := []part{library}
	for _, m := range modules {
		slices.SortFunc(m.texts, func(a, b text) int { return strings.Compare(a.name, b.name) })
		m.texts = slices.CompactFunc(m.texts, func(a, b text) bool { return a.name == b.name })
		parts = append(parts, *m)
	}
	slices.SortFunc(parts[1:], func(a, b part) int { return cmp.Compare(a.name, b.name) })
	return parts, nil
}

func output(root string, env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = root, append(os.Environ(), env...), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// textsUp are the licences and notices in a folder and those above it, up to top.
func textsUp(dir, top string) ([]text, error) {
	var texts []text
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !legal.MatchString(e.Name()) && !legalNotice.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			name := filepath.Join(dir, e.Name())
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			inside, err := filepath.Rel(top, name)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text{filepath.ToSlash(inside), data})
		}
		if dir == top || len(dir) <= len(top) {
			return texts, nil
		}
		dir = filepath.Dir(dir)
	}
}

// bundled are the packages that the console's pages are built with. The text of each lies in proxy/console/web/licences, since its own
// is only there once npm has fetched it.
func bundled(root string) ([]part, error) {
	web := filepath.Join(root, "proxy", "console", "web")
	data, err := os.ReadFile(filepath.Join(web, "package.json"))
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, err
	}
	var parts []part
	for name, version := range manifest.Dependencies {
		data, err := os.ReadFile(filepath.Join(web, "licences", name))
		if err != nil {
			return nil, fmt.Errorf("the console holds %s: %w", name, err)
		}
		parts = append(parts, part{name: name, version: version, texts: []text{{"LICENSE", data}}})
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.name, b.name) })
	return parts, nil
}
