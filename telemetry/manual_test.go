package telemetry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "reference", "telemetry.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A name that semconv has and the manual has not is a name that nobody can look up. The names are read from the
// source, so a new one cannot be forgotten here.
func TestTheManualExplainsEveryName(t *testing.T) {
	text := manual(t)
	names := exportedStrings(t, "semconv")
	if len(names) < 50 {
		t.Fatalf("names found in semconv: got %d, want all of them", len(names))
	}
	for constant, value := range names {
		if !strings.Contains(text, "`"+value+"`") {
			t.Errorf("docs/reference/telemetry.md does not explain `%s` (semconv.%s)", value, constant)
		}
	}
}

// exportedStrings are the exported string constants of the package in dir, also those behind a conversion.
func exportedStrings(t *testing.T, dir string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				value := spec.(*ast.ValueSpec)
				for i, name := range value.Names {
					if i < len(value.Values) && name.IsExported() {
						if literal, ok := stringLiteral(value.Values[i]); ok {
							found[name.Name] = literal
						}
					}
				}
			}
		}
	}
	return found
}

func stringLiteral(expr ast.Expr) (string, bool) {
	switch e := expr.(type) {
	case *ast.CallExpr:
		if len(e.Args) == 1 {
			return stringLiteral(e.Args[0])
		}
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	}
	return "", false
}
