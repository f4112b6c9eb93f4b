package inject

import "go.yaml.in/yaml/v3"

// owned are the nodes that are going to be changed, and those that they stand in.
type owned map[*yaml.Node]bool

// walk is get, which makes what it passes the object's own: an alias, and what a merge (<<) brings, is written out first.
func (o owned) walk(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		n = own(n, k)
		if n == nil {
			return nil
		}
		o[n] = true
	}
	return n
}

// item is an element of a list, which becomes its own; nil where there is none.
func (o owned) item(list *yaml.Node, i int) *yaml.Node {
	if list == nil || list.Kind != yaml.SequenceNode || i >= len(list.Content) {
		return nil
	}
	if list.Content[i].Kind == yaml.AliasNode {
		list.Content[i] = clone(resolve(list.Content[i]))
	}
	o[list.Content[i]] = true
	return list.Content[i]
}

// part writes out the aliases, anywhere in the document, of what is going to be changed: they keep what they had.
func (o owned) part(n *yaml.Node) {
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode && o[c.Alias] {
			n.Content[i] = clone(c.Alias)
			continue
		}
		o.part(c)
	}
}

// own is the value of a key that no other mapping shares; nil where there is none.
func own(n *yaml.Node, k string) *yaml.Node {
	v := get(n, k)
	if v == nil {
		return nil
	}
	n = resolve(n)
	switch i := index(n, k); {
	case i < 0: // merged
		v = clone(v)
		n.Content = append(n.Content, scalar(k), v)
	case n.Content[i].Kind == yaml.AliasNode:
		v = clone(v)
		n.Content[i] = v
	}
	return v
}

// clone copies a tree, without its anchors: its aliases lead to the first ones.
func clone(n *yaml.Node) *yaml.Node {
	c := *n
	if c.Kind != yaml.AliasNode {
		c.Anchor = ""
	}
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = clone(child)
	}
	return &c
}

// recursive says whether an anchor contains an alias of itself.
func recursive(n *yaml.Node, above map[*yaml.Node]bool) bool {
	if n.Kind == yaml.AliasNode {
		return above[n.Alias]
	}
	above[n] = true
	defer delete(above, n)
	for _, c := range n.Content {
		if recursive(c, above) {
			return true
		}
	}
	return false
}
