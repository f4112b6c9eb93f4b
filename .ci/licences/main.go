package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// allowed licences let a program under Apache-2.0 hold the code, as long as their texts are handed on.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("licences", flag.ContinueOnError)
	root := f.String("root", "../..", "folder of semproxy's sources")
	notices := f.String("notices", "", "file for the licences' texts; empty: none")
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return cmp.Or(err, errors.New("unknown argument "+f.Arg(0)))
	}
	parts, err := linked(*root)
	if err != nil {
		return err
	}
	page, err := bundled(*root)
	if err != nil {
		return err
	}
	parts = append(parts, page...)
	count := map[string]int{}
	var bad []error
	for i := range parts {
		p := &parts[i]
		if err := p.classify(); err != nil {
			bad = append(bad, err)
		}
		for _, id := range p.licences {
			count[id]++
		}
	}
	if err := errors.Join(bad...); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d parts of others in semproxy:", len(parts))
	for _, id := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(stdout, " %d %s", count[id], id)
	}
	fmt.Fprintln(stdout)
	if *notices == "" {
		return nil
	}
	return os.WriteFile(*notices, noticesOf(parts), 0o644)
}

// noticesOf is the texts of all parts, in the order of their names. The same parts give the same bytes.
func noticesOf(parts []part) []byte {
	var b strings.Builder
	b.WriteString("semproxy is under the Apache License 2.0 (LICENSE). Its program holds code of others, under these licences.\n")
	for i := range parts {
		p := &parts[i]
		fmt.Fprintf(&b, "\n%s\n%s %s (%s)\n", strings.Repeat("=", 80), p.name, p.version, strings.Join(p.licences, ", "))
		for _, t := range p.texts {
			fmt.Fprintf(&b, "\n--- %s\n\n%s\n", t.name, strings.TrimSpace(strings.ReplaceAll(string(t.data), "\r\n", "\n")))
		}
	}
	return []byte(b.String())
}
