package store

import (
	"io"
	"io/fs"
	"os"
)

// fileSystem is what a disk needs of one. osFiles is the machine's; tests have one that loses what was not synced.
type fileSystem interface {
	mkdir(path string) error
	create(path string) (writable, error) // it must not be there
	open(path string) (readable, error)
	rename(from, to string) error
	remove(path string) error // a file, or an empty folder
	lstat(path string) (fs.FileInfo, error)
	readDir(path string) ([]fs.DirEntry, error)
	syncDir(path string) error
}

type writable interface {
	io.WriteCloser
	Sync() error
}

type readable interface {
	io.ReadCloser
	Stat() (fs.FileInfo, error)
}

type osFiles struct{}

func (osFiles) mkdir(path string) error                    { return os.Mkdir(path, 0o700) }
func (osFiles) rename(from, to string) error               { return os.Rename(from, to) }
func (osFiles) remove(path string) error                   { return os.Remove(path) }
func (osFiles) lstat(path string) (fs.FileInfo, error)     { return os.Lstat(path) }
func (osFiles) readDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFiles) open(path string) (readable, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (osFiles) create(path string) (writable, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (osFiles) syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	return err
}
