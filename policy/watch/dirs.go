package watch

import (
	"os"
	"path/filepath"
	"slices"
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
// link that points elsewhere now, is watched anew. It looks again until nothing has changed under its hands; what changes
// later is reported.
func (d *dirs) arm() {
	for range 8 {
		if !d.step() {
			return
		}
	}
}

// step brings the watches nearer to what is wanted and reports whether there was anything to do. The directory that holds
// path comes first: were path watched before it, path could be replaced in between, and nobody would say so.
func (d *dirs) step() (busy bool) {
	want, alive := d.wanted(), d.notify.WatchList()
	for _, dir := range want {
		if old, ok := d.watched[dir.path]; ok {
			if os.SameFile(old, dir.info) && slices.Contains(alive, dir.path) {
				continue
			}
			d.forget(dir.path)
		}
		busy = true
		if d.notify.Add(dir.path) == nil { // gone again, or the system has no watch left: the poll stands behind
			d.watched[dir.path] = dir.info
		}
	}
	for path := range d.watched {
		if !slices.ContainsFunc(want, func(dir directory) bool { return dir.path == path }) {
			d.forget(path)
			busy = true
		}
	}
	return busy
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

type directory struct {
	path string
	info os.FileInfo
}

// wanted lists the directories to watch as they are now: the one that holds path or the nearest above, then path itself.
func (d *dirs) wanted() []directory {
	var want []directory
	for dir := filepath.Dir(d.path); len(want) == 0; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			want = append(want, directory{dir, info})
		}
		if dir == filepath.Dir(dir) {
			break // the root
		}
	}
	if info, err := os.Stat(d.path); err == nil && info.IsDir() {
		want = append(want, directory{d.path, info})
	}
	return want
}

// concerns reports whether a change of name can change what is read at path: name is path, above it, or directly in it. For
// a file, links beside it count too, because a mounted ConfigMap's file leads through the link ..data.
func (d *dirs) concerns(name string) bool {
	name = filepath.Clean(name) // below the root it comes with two slashes
	if name == d.path || strings.HasPrefix(d.path, name+string(filepath.Separator)) {
		return true
	}
	holder := filepath.Dir(name)
	return holder == d.path || (holder == filepath.Dir(d.path) && strings.HasPrefix(filepath.Base(name), "..data"))
}
