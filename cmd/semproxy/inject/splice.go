package inject

import (
	"bytes"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// edit puts lines before a line of a text, counted from 0.
type edit struct {
	at   int
	text string
}

// splice writes what was added to a document into its text, so that every other byte stays as it was. It reports false where that
// cannot be done, which is where the addition goes into flow style or aliases were written out; the caller then encodes the document
// anew. What it returns has been read again and is what after is.
func splice(text string, before, after *yaml.Node) (string, bool) {
	lines := strings.SplitAfter(text, "\n")
	if n := len(lines); lines[n-1] == "" {
		lines = lines[:n-1]
	} else {
		lines[n-1] += "\n"
	}
	s := splicer{lines: lines}
	if !s.compare(resolve(before), resolve(after)) {
		return "", false
	}
	slices.SortStableFunc(s.edits, func(a, b edit) int { return a.at - b.at })
	var out strings.Builder
	next := 0
	for i, l := range lines {
		for ; next < len(s.edits) && s.edits[next].at == i; next++ {
			out.WriteString(s.edits[next].text)
		}
		out.WriteString(l)
	}
	for ; next < len(s.edits); next++ {
		out.WriteString(s.edits[next].text)
	}
	var got, want any
	if yaml.Unmarshal([]byte(out.String()), &got) != nil || after.Decode(&want) != nil || !reflect.DeepEqual(got, want) {
		return "", false
	}
	return out.String(), true
}

type splicer struct {
	lines []string
	edits []edit
}

// compare finds what after has more than before. False: it is not only more, or it does not stand in block style.
func (s *splicer) compare(before, after *yaml.Node) bool {
	if before.Kind != after.Kind || before.Kind == yaml.ScalarNode && before.Value != after.Value {
		return false
	}
	switch before.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(before.Content); i += 2 {
			if !s.compare(before.Content[i+1], after.Content[i+1]) {
				return false
			}
		}
		return s.grown(before, after.Content[len(before.Content):])
	case yaml.SequenceNode:
		more := len(after.Content) - len(before.Content)
		front := more // the sidecar goes before the others, everything else behind them
		for front > 0 && (len(before.Content) == 0 || !same(before.Content[0], after.Content[front])) {
			front--
		}
		for i, b := range before.Content {
			if !s.compare(b, after.Content[front+i]) {
				return false
			}
		}
		behind := after.Content[front+len(before.Content):]
		return s.before(before, after.Content[:front]) && s.grown(before, behind)
	}
	return true
}

// same says whether two nodes are of one place: clones keep lines and columns.
func same(a, b *yaml.Node) bool { return a.Line == b.Line && a.Column == b.Column && b.Line > 0 }

// block says whether things can be put into a collection by whole lines.
func (s *splicer) block(n *yaml.Node) bool {
	return n.Style&yaml.FlowStyle == 0 && len(n.Content) > 0 && n.Content[0].Line > 0
}

// before puts items before the first of a list.
func (s *splicer) before(list *yaml.Node, items []*yaml.Node) bool {
	if len(items) == 0 {
		return true
	}
	if !s.block(list) {
		return false
	}
	line := list.Content[0].Line - 1
	return s.add(line, s.indent(list), &yaml.Node{Kind: yaml.SequenceNode, Content: items})
}

// grown puts things behind the last of a collection.
func (s *splicer) grown(n *yaml.Node, more []*yaml.Node) bool {
	if len(more) == 0 {
		return true
	}
	if !s.block(n) {
		return false
	}
	return s.add(s.end(n), s.indent(n), &yaml.Node{Kind: n.Kind, Content: more})
}

// indent is the column, from 0, at which the entries of a collection begin: a list's dashes, a mapping's keys.
func (s *splicer) indent(n *yaml.Node) int {
	if n.Kind == yaml.MappingNode {
		return n.Content[0].Column - 1
	}
	return n.Column - 1
}

// end is the line behind the last entry of a collection, without the comments and empty lines that follow it.
func (s *splicer) end(n *yaml.Node) int {
	last := n.Content[len(n.Content)-1]
	if n.Kind == yaml.MappingNode {
		last = n.Content[len(n.Content)-2]
	}
	end := last.Line
	for i := last.Line; i < len(s.lines); i++ {
		l := strings.TrimRight(s.lines[i], " \t\r\n")
		trimmed := strings.TrimLeft(l, " ")
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		if depth := len(l) - len(trimmed); depth < s.indent(n) || depth == s.indent(n) && (n.Kind != yaml.MappingNode || !strings.HasPrefix(trimmed, "- ")) {
			break
		}
		end = i + 1
	}
	return end
}

func (s *splicer) add(line, indent int, n *yaml.Node) bool {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if enc.Encode(n) != nil || enc.Close() != nil {
		return false
	}
	var out strings.Builder
	for l := range strings.Lines(b.String()) {
		if strings.TrimSpace(l) != "" {
			out.WriteString(strings.Repeat(" ", indent))
		}
		out.WriteString(l)
	}
	s.edits = append(s.edits, edit{line, out.String()})
	return true
}
