package compress_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

var update = flag.Bool("update", false, "write testdata/defaults.golden again")

// defaults are the presets, and the budgets that a policy may ask of those that have one.
func defaults() map[string]compress.Options {
	all := map[string]compress.Options{
		"semantic": compress.Semantic(), "weighted": compress.Weighted(), "paper": compress.Paper(), "hybrid": compress.Hybrid(),
		"window": compress.Window(), "keynorm": compress.KeyNorm(), "snapkv": compress.SnapKV(), "uniform": compress.Uniform(),
	}
	for _, name := range []string{"semantic", "weighted"} {
		equal, layered := all[name], all[name]
		equal.Budget, equal.Across = compress.Equal, false
		layered.Budget = compress.Layered
		all[name+", equal"], all[name+", layered"] = equal, layered
	}
	fp8 := all["weighted"]
	fp8.FP8 = compress.F8E4M3
	all["weighted, fp8"] = fp8
	return all
}

const goldenDefaults = "testdata/defaults.golden"

// The file pins, for each default, its options, its decisions (which core each token is in) and its cores' bytes as the plain
// loops give them. Who changes a preset sees this fail and writes the file again with -update: the options are in the key
// already. Who changes the algorithm raises AlgorithmVersion too: without that -update refuses, since the key would be the
// old one. Bytes are compared on amd64 only, where the compiler fuses nothing.
func TestDefaultsGiveTheCoresOfTheirVersion(t *testing.T) {
	lines := []string{fmt.Sprintf("version %d", compress.AlgorithmVersion)}
	c := compress.NewWith(2, simd.Generic())
	defer c.Close()
	p := loadPage(t, "../configs/demo", "kjv")
	all := defaults()
	var res compress.Result
	for _, name := range slices.Sorted(maps.Keys(all)) {
		opt := all[name]
		opt.Ratio = 0.25
		if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, options, _ := strings.Cut(opt.Identity(), " ")
		lines = append(lines, fmt.Sprintf("%s | %s | %s | %s", name, digest(options), digest(res.Assign, res.Counts, res.Slots, res.Thresholds, res.Dropped),
			digest(res.K, res.V, res.KScale, res.VScale, res.Bias, res.Positions)))
	}
	raw, err := os.ReadFile(goldenDefaults)
	if err != nil && !*update {
		t.Fatal(err)
	}
	old := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if *update {
		for i, line := range lines {
			if lines[0] == old[0] && i < len(old) && head(line, 2) == head(old[i], 2) && line != old[i] {
				t.Fatalf("%s: the same options give other cores: raise compress.AlgorithmVersion first", head(line, 1))
			}
		}
		if err := os.WriteFile(goldenDefaults, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(lines) != len(old) {
		t.Fatalf("got %d lines, want the %d of %s: go test ./compress -run Defaults -update", len(lines), len(old), goldenDefaults)
	}
	for i := range lines {
		columns := 4
		if runtime.GOARCH != "amd64" {
			columns = 3
		}
		if got, want := head(lines[i], columns), head(old[i], columns); got != want {
			t.Errorf("got  %s\nwant %s\nA changed preset: go test ./compress -run Defaults -update. A changed algorithm: raise compress.AlgorithmVersion first.", got, want)
		}
	}
}

// head is the first columns of a line.
func head(line string, columns int) string {
	parts := strings.Split(line, " | ")
	return strings.Join(parts[:min(columns, len(parts))], " | ")
}

func digest(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		add(h, p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func add(h hash.Hash, p any) {
	if s, ok := p.(string); ok {
		p = []byte(s)
	}
	if err := binary.Write(h, binary.LittleEndian, p); err != nil {
		panic(err)
	}
	fmt.Fprintf(h, "/%d/", reflect.ValueOf(p).Len())
}

// Every option is in the identity, so that a new one cannot be forgotten.
func TestEveryOptionChangesTheIdentity(t *testing.T) {
	base := compress.Weighted()
	plain := base.Identity()
	v := reflect.ValueOf(&base).Elem()
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		before := reflect.ValueOf(f.Interface())
		switch f.Kind() {
		case reflect.Int64: // MaxScratch
			f.SetInt(1)
			if base.Identity() != plain {
				t.Errorf("%s changes the identity, and follows from the page", name)
			}
			f.SetInt(0)
			continue
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Int:
			f.SetInt(f.Int() + 1)
		case reflect.Uint8:
			f.SetUint(f.Uint() + 1)
		case reflect.Float64:
			f.SetFloat(f.Float() + 1.0/1024)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Func:
			if name != "Progress" {
				t.Errorf("%s is a function, which no identity can hold", name)
			}
			base.Progress = func(int, int) {}
			if base.Identity() != plain {
				t.Errorf("Progress changes the identity")
			}
			f.SetZero()
			continue
		default:
			t.Errorf("%s is a %s: an identity would hold its address, not what it says", name, f.Kind())
			continue
		}
		if base.Identity() == plain {
			t.Errorf("%s does not change the identity", name)
		}
		if before.IsValid() {
			f.Set(before)
		}
		if base.Identity() != plain {
			t.Fatalf("%s: the identity is not the same for the same options", name)
		}
	}
}
