package store

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"
	"time"
)

// powerFiles is a file system in memory that loses power: what was not synced is then there, gone, cut short or garbage, as
// its dice say. A file's bytes are safe once it was synced, a name once its folder was. It can be full, and bytes of it can
// be changed.
type powerFiles struct {
	dice  *rand.Rand
	now   map[string]*node // by path: what a process sees
	safe  map[string]*node // what outlives the power
	room  int              // bytes that still fit; negative: no bound
	syncs int
}

// node is a file or a folder. A file's bytes are shared by all its names.
type node struct {
	dir    bool
	data   []byte
	synced []byte // nil: none were
}

func newPowerFiles(dice *rand.Rand) *powerFiles {
	root := &node{dir: true}
	return &powerFiles{dice: dice, now: map[string]*node{"/s": root}, safe: map[string]*node{"/s": root}, room: -1}
}

func failed(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (p *powerFiles) mkdir(name string) error {
	if p.now[name] != nil {
		return failed("mkdir", name, fs.ErrExist)
	}
	p.now[name] = &node{dir: true}
	return nil
}

func (p *powerFiles) create(name string) (writable, error) {
	switch {
	case p.now[path.Dir(name)] == nil:
		return nil, failed("open", name, fs.ErrNotExist)
	case p.now[name] != nil:
		return nil, failed("open", name, fs.ErrExist)
	}
	n := &node{}
	p.now[name] = n
	return &openFile{p: p, n: n, name: name}, nil
}

func (p *powerFiles) open(name string) (readable, error) {
	n := p.now[name]
	if n == nil {
		return nil, failed("open", name, fs.ErrNotExist)
	}
	return &openFile{p: p, n: n, name: name, r: bytes.NewReader(n.data)}, nil
}

func (p *powerFiles) rename(from, to string) error {
	n := p.now[from]
	if n == nil {
		return failed("rename", from, fs.ErrNotExist)
	}
	delete(p.now, from)
	p.now[to] = n
	return nil
}

func (p *powerFiles) remove(name string) error {
	n := p.now[name]
	if n == nil {
		return failed("remove", name, fs.ErrNotExist)
	}
	if n.dir {
		for other := range p.now {
			if path.Dir(other) == name {
				return failed("remove", name, syscall.ENOTEMPTY)
			}
		}
	} else if p.room >= 0 {
		p.room += len(n.data)
	}
	delete(p.now, name)
	return nil
}

func (p *powerFiles) lstat(name string) (fs.FileInfo, error) {
	n := p.now[name]
	if n == nil {
		return nil, failed("lstat", name, fs.ErrNotExist)
	}
	return nodeInfo{name: path.Base(name), n: n}, nil
}

func (p *powerFiles) readDir(name string) (all []fs.DirEntry, err error) {
	if p.now[name] == nil {
		return nil, failed("readdir", name, fs.ErrNotExist)
	}
	for _, other := range slices.Sorted(maps.Keys(p.now)) {
		if path.Dir(other) == name && other != name {
			all = append(all, fs.FileInfoToDirEntry(nodeInfo{name: path.Base(other), n: p.now[other]}))
		}
	}
	return all, nil
}

// syncDir makes the names in a folder safe.
func (p *powerFiles) syncDir(name string) error {
	p.syncs++
	for other := range p.safe {
		if path.Dir(other) == name && other != name && p.now[other] != p.safe[other] {
			delete(p.safe, other)
		}
	}
	for other, n := range p.now {
		if path.Dir(other) == name {
			p.safe[other] = n
		}
	}
	return nil
}

// cut is a power loss: of every name that was not synced it is left to the dice whether it is there, and of every file that
// was not synced what its bytes are.
func (p *powerFiles) cut() {
	names := map[string]bool{}
	for name := range p.now {
		names[name] = true
	}
	for name := range p.safe {
		names[name] = true
	}
	after := map[string]*node{"/s": p.now["/s"]}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := p.safe[name]
		if p.now[name] != n && p.dice.IntN(2) == 0 {
			n = p.now[name]
		}
		if n != nil && after[path.Dir(name)] != nil {
			after[name] = n
		}
	}
	p.now = after
	for _, name := range slices.Sorted(maps.Keys(after)) {
		n := after[name]
		if n.dir || bytes.Equal(n.data, n.synced) && n.synced != nil {
			continue
		}
		switch p.dice.IntN(4) {
		case 0: // all of it was written nevertheless
		case 1:
			n.data = n.data[:p.dice.IntN(len(n.data)+1)]
		case 2:
			n.data = make([]byte, len(n.data))
		default:
			n.data = slices.Clone(n.synced)
		}
		n.synced = slices.Clone(n.data)
	}
	p.safe = maps.Clone(p.now)
}

// damage changes one byte of some file, or cuts it short; false where there is none.
func (p *powerFiles) damage() bool {
	var files []*node
	for _, name := range slices.Sorted(maps.Keys(p.now)) {
		if n := p.now[name]; !n.dir && len(n.data) > 0 {
			files = append(files, n)
		}
	}
	if len(files) == 0 {
		return false
	}
	n := files[p.dice.IntN(len(files))]
	n.data = slices.Clone(n.data)
	if p.dice.IntN(4) == 0 {
		n.data = n.data[:p.dice.IntN(len(n.data))]
	} else {
		n.data[p.dice.IntN(len(n.data))] ^= byte(1 << p.dice.IntN(8))
	}
	n.synced = slices.Clone(n.data)
	return true
}

// openFile is a file that is open for reading (r is not nil) or for writing.
type openFile struct {
	p    *powerFiles
	n    *node
	name string
	r    *bytes.Reader
}

func (f *openFile) Read(b []byte) (int, error) {
	if f.r == nil {
		return 0, io.EOF
	}
	return f.r.Read(b)
}

func (f *openFile) Write(b []byte) (int, error) {
	if f.p.room >= 0 {
		if len(b) > f.p.room {
			n := f.p.room
			f.n.data, f.p.room = append(f.n.data, b[:n]...), 0
			return n, failed("write", f.name, syscall.ENOSPC)
		}
		f.p.room -= len(b)
	}
	f.n.data = append(f.n.data, b...)
	return len(b), nil
}

func (f *openFile) Sync() error {
	f.p.syncs++
	f.n.synced = slices.Clone(f.n.data)
	return nil
}

func (f *openFile) Close() error               { return nil }
func (f *openFile) Stat() (fs.FileInfo, error) { return nodeInfo{name: path.Base(f.name), n: f.n}, nil }

type nodeInfo struct {
	name string
	n    *node
}

func (i nodeInfo) Name() string       { return i.name }
func (i nodeInfo) Size() int64        { return int64(len(i.n.data)) }
func (i nodeInfo) ModTime() time.Time { return time.Time{} }
func (i nodeInfo) IsDir() bool        { return i.n.dir }
func (i nodeInfo) Sys() any           { return nil }
func (i nodeInfo) Mode() fs.FileMode {
	if i.n.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

type noLock struct{}

func (noLock) Close() error { return nil }

// openOn opens a store on such a file system.
func openOn(p *powerFiles, opt FilesOptions) (*Files, error) {
	return open(&disk{dir: "/s", sync: opt.Sync, fs: p, lock: noLock{}}, opt.withDefaults(false))
}
