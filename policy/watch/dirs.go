package watch

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// dirs keeps the notifications on the directories through which path can change: path itself when it is a directory, and
// the one that holds it, or the nearest above that exists, so that what was deleted is noticed when it returns.
type dirs struct {
	path    string // absolute
	notify  *fsnotify.Watcher
	watched map[string]os.FileInfo
}

func newDirs(path string, notify *fsnotify.Watcher) *dirs {
	return &dirs{path: path, notify: notify, watched: map[string]os.FileInfo{}}
}

// arm watches what is to be watched now. A directory that was replaced by another of the same name, or reached through a
// link that points elsewhere now, is watched anew.
func (d *dirs) arm() {
	want := d.wanted()
	for dir := range d.watched {
		if _, ok := want[dir]; !ok {
			d.forget(dir)
		}
	}
	for dir, info := range want {
		if old, ok := d.watched[dir]; ok {
			if os.SameFile(old, info) {
				continue
			}
			d.forget(dir)
		}
		if d.notify.Add(dir) == nil { // gone again, or the system has no watch left: the poll stands behind
			d.watched[dir] = info
		}
	}
}

func (d *dirs) forget(dir string) {
	_ = d.notify.Remove(dir) // an error says that it is not watched any more, which is what is wanted
	delete(d.watched, dir)
}

// changed reports whether an event can change what is read at path. A watched directory that went away is forgotten: one that
// returns under its name, perhaps with its very inode, is another one.
func (d *dirs) changed(event fsnotify.Event) bool {
	if _, ok := d.watched[event.Name]; ok && (event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename)) {
		d.forget(event.Name)
	}
	return d.concerns(event.Name)
}

func (d *dirs) wanted() map[string]os.FileInfo {
	want := map[string]os.FileInfo{}
	if info, err := os.Stat(d.path); err == nil && info.IsDir() {
		want[d.path] = info
	}
	for dir := filepath.Dir(d.path); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			want[dir] = info
			return want
		}
		if dir == filepath.Dir(dir) {
			return want
		}
	}
}

// concerns reports whether a change of name can change what is read at path: name is path, above it, or directly in it. For
// a file, links beside it count too, because a mounted ConfigMap's file leads through the link ..data.
func (d *dirs) concerns(name string) bool {
	if name == d.path || strings.HasPrefix(d.path, name+string(filepath.Separator)) {
		return true
	}
	holder := filepath.Dir(name)
	return holder == d.path || (holder == filepath.Dir(d.path) && strings.HasPrefix(filepath.Base(name), "..data"))
}
