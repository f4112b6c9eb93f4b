package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// The forms that every command that prints a result knows.
const (
	Table = "table"
	JSON  = "json"
	YAML  = "yaml"
)

// Forms are all of them.
var Forms = []string{Table, JSON, YAML}

// Flag gives a command the flag that all have: how it prints.
func Flag(cmd *cobra.Command, output *string) {
	*output = Table
	cmd.Flags().VarP(&Choice{Value: output, Of: Forms}, "output", "o", "table, json or yaml")
	Complete(cmd, "output", Forms)
}

// JSONFlag gives a command the flag that is short for -o json.
func JSONFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().Var(&jsonWord{output}, "json", "short for -o json")
	cmd.Flags().Lookup("json").NoOptDefVal = "true"
}

// FileFlag is outputFlag for a command whose -o has named a file: a word that is no form still does.
func FileFlag(cmd *cobra.Command, output *string, what string) {
	*output = Table
	cmd.Flags().StringVarP(output, "output", "o", Table, "table, json or yaml; any other word is "+what+", as --out")
	Complete(cmd, "output", Forms)
}

// As writes v as output says; a table is the command's own.
func As(w io.Writer, output string, v any, table func(io.Writer) error) error {
	if output == Table {
		return table(w)
	}
	return Value(w, output, v)
}

// Value writes v as JSON, or as YAML with the same keys in the same order.
func Value(w io.Writer, output string, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	if output == JSON {
		_, err := w.Write(text.Bytes())
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text.Bytes(), &doc); err != nil { // JSON is YAML
		return err
	}
	block(&doc)
	y := yaml.NewEncoder(w)
	y.SetIndent(2)
	return errors.Join(y.Encode(&doc), y.Close())
}

// block takes JSON's braces and quotes away, where nothing is lost.
func block(n *yaml.Node) {
	if n.Style == yaml.FlowStyle && len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Style == yaml.DoubleQuotedStyle {
		n.Style = 0
		if n.Tag == "" || n.Tag == "!!str" {
			n.SetString(n.Value)
		}
	}
	for _, c := range n.Content {
		block(c)
	}
}

// Rows prints results as they come: a JSON object a line, or a YAML document each.
func Rows(w io.Writer, output string) func(v any) error {
	if output == JSON {
		return json.NewEncoder(w).Encode
	}
	return func(v any) error {
		if _, err := fmt.Fprintln(w, "---"); err != nil {
			return err
		}
		return Value(w, YAML, v)
	}
}

// OrAuto sets a flag's default.
func OrAuto(s *string) *string {
	*s = "auto"
	return s
}

// Complete lets a shell complete a flag's words.
func Complete(cmd *cobra.Command, flag string, words []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// Choice is a flag with a few words.
type Choice struct {
	Value *string
	Of    []string
	Also  string // taken as well, as the first
}

func (c *Choice) String() string { return *c.Value }

// Type is what help shows.
func (c *Choice) Type() string { return "string" }

// Set refuses other words.
func (c *Choice) Set(text string) error {
	if text != "" && text == c.Also {
		text = c.Of[0]
	}
	if !slices.Contains(c.Of, text) {
		return fmt.Errorf("must be one of %s", strings.Join(c.Of, ", "))
	}
	*c.Value = text
	return nil
}

// jsonWord is the flag --json.
type jsonWord struct{ output *string }

func (j *jsonWord) String() string {
	return fmt.Sprint(j.output != nil && *j.output == JSON)
}

// Type is what help shows.
func (j *jsonWord) Type() string { return "bool" }

// Set takes true and false.
func (j *jsonWord) Set(text string) error {
	switch text {
	case "true":
		*j.output = JSON
	case "false":
	default:
		return errors.New("must be true or false")
	}
	return nil
}
