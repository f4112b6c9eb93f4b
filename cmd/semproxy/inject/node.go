package inject

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// get is the value of a key of a mapping, nil where there is none. Merged mappings (<<) count.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		n = value(n, k)
	}
	n = resolve(n)
	if n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	return n
}

// value is what a mapping has under a key: its own value, else that of what it merges.
func value(n *yaml.Node, k string) *yaml.Node {
	if n = resolve(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	if i := index(n, k); i >= 0 {
		return n.Content[i]
	}
	i := index(n, "<<")
	if i < 0 {
		return nil
	}
	from := []*yaml.Node{n.Content[i]}
	if list := resolve(n.Content[i]); list.Kind == yaml.SequenceNode {
		from = list.Content
	}
	for _, m := range from { // of several the first wins
		if v := value(m, k); v != nil {
			return v
		}
	}
	return nil
}

// index is where in a mapping's content the value of a key of its own stands, -1: nowhere.
func index(n *yaml.Node, k string) int {
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		if n.Content[i].Value == k {
			return i + 1
		}
	}
	return -1
}

// resolve follows aliases and enters documents.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil {
		switch {
		case n.Kind == yaml.AliasNode:
			n = n.Alias
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
			n = n.Content[0]
		default:
			return n
		}
	}
	return nil
}

// ensure is get, which makes an empty value of that kind where there is none.
func ensure(n *yaml.Node, k string, kind yaml.Kind) *yaml.Node {
	if v := own(n, k); v != nil && v.Kind == kind {
		if len(v.Content) == 0 {
			v.Style = 0 // [] and {} grow in block style
		}
		return v
	}
	v := &yaml.Node{Kind: kind}
	n = resolve(n)
	if i := index(n, k); i >= 0 {
		n.Content[i] = v
		return v
	}
	n.Content = append(n.Content, scalar(k), v)
	return v
}

func scalar(text string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(text)
	return n
}

// items are the elements of a list, none where it is not one.
func items(n *yaml.Node) []*yaml.Node {
	if n = resolve(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		all[i] = resolve(c)
	}
	return all
}

// names of the elements of a list.
func names(list *yaml.Node) []string {
	var all []string
	for _, n := range items(list) {
		all = append(all, textOf(get(n, "name")))
	}
	return all
}

func textOf(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// fill copies a node with words replaced in its texts.
func fill(n *yaml.Node, words *strings.Replacer) *yaml.Node {
	c := *n
	c.HeadComment, c.LineComment, c.FootComment = "", "", ""
	if c.Kind == yaml.ScalarNode {
		c.Value = words.Replace(c.Value)
	}
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = fill(child, words)
	}
	return &c
}
