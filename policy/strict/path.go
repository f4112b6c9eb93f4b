package strict

import (
	"strconv"
	"strings"
)

// Key returns the path of a mapping's key: parent.key, or parent["key"] when the key holds a character that would make the
// path ambiguous.
func Key(parentPath, key string) string {
	if !plain(key) {
		return parentPath + "[" + strconv.Quote(clip(key)) + "]"
	}
	if parentPath == "" {
		return key
	}
	return parentPath + "." + key
}

// Index returns the path of a list's element: parent[i].
func Index(parentPath string, i int) string {
	return parentPath + "[" + strconv.Itoa(i) + "]"
}

func plain(key string) bool {
	if key == "" || len(key) > maxShown {
		return false
	}
	for _, r := range key {
		if strings.ContainsRune(`.[]":`, r) || r <= ' ' || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// parent cuts the last step of a path; the parent of a first step is the empty path.
func parent(path string) string {
	if strings.HasSuffix(path, `"]`) {
		if i := strings.LastIndex(path, `["`); i >= 0 {
			return path[:i]
		}
	}
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

// within reports whether path is outer or lies inside it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}
