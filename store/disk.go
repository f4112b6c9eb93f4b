package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	objectSuffix = ".obj"
	tempPrefix   = ".tmp-"
	seqDigits    = 16
)

// disk keeps each version of an object in DIR/TENANT/OBJECT-SEQ.obj. A version's file is written once under a
// temporary name, renamed, and never touched again until it is removed, so readers and writers need no lock.
type disk struct {
	dir  string
	sync bool
	fs   fileSystem
	lock io.Closer
}

// newDisk creates dir where needed and takes it for this process alone.
func newDisk(dir string, sync bool) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unavailable("create store directory", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, unavailable("lock store directory", err)
	}
	return &disk{dir: dir, sync: sync, fs: osFiles{}, lock: lock}, nil
}

func (d *disk) close() error { return d.lock.Close() }

func fileName(object string, seq uint64) string {
	return fmt.Sprintf("%s-%0*x%s", object, seqDigits, seq, objectSuffix)
}

// parseFileName is fileName's inverse; ok is false for a name that the store did not make.
func parseFileName(name string) (object string, seq uint64, ok bool) {
	stem, found := strings.CutSuffix(name, objectSuffix)
	object, digits, dash := strings.Cut(stem, "-")
	if !found || !dash || len(digits) != seqDigits || (Key{"t", object}).Validate() != nil {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return object, seq, err == nil
}

func (d *disk) path(e *entry) string {
	return filepath.Join(d.dir, tenantDir(e.key.Tenant), fileName(e.key.Object, e.seq))
}

// write commits the blob as e's file, or leaves nothing behind.
func (d *disk) write(e *entry, blob []byte) error {
	dir := filepath.Join(d.dir, tenantDir(e.key.Tenant))
	temp := filepath.Join(dir, fmt.Sprintf("%s%0*x", tempPrefix, seqDigits, e.seq))
	file, err := d.create(dir, temp)
	if err != nil {
		return err
	}
	header := e.appendHeader(make([]byte, 0, maxHeaderBytes))
	_, err = file.Write(header)
	if err == nil {
		_, err = file.Write(blob)
	}
	if err == nil && d.sync {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = d.fs.rename(temp, d.path(e))
	}
	if err != nil {
		_ = d.fs.remove(temp)
		return err
	}
	if d.sync {
		if err := d.fs.syncDir(dir); err != nil {
			_ = d.fs.remove(d.path(e))
			return err
		}
	}
	return nil
}

// create opens the temporary file, making the tenant's directory where it is missing. The removal of a tenant's last
// object takes the directory away, perhaps between the two steps; each failure then means that another step was done.
func (d *disk) create(dir, temp string) (writable, error) {
	for attempt := 0; ; attempt++ {
		file, err := d.fs.create(temp)
		if err == nil || attempt == 8 || !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
		if err := d.fs.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if d.sync {
			if err := d.fs.syncDir(d.dir); err != nil {
				return nil, err
			}
		}
	}
}

// read returns e's blob, checked. A missing file, a changed header or a changed blob is errDamaged.
func (d *disk) read(e *entry) ([]byte, error) {
	file, err := d.fs.open(d.path(e))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errDamaged
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if stat.Size() != e.fileBytes() {
		return nil, errDamaged
	}
	buf := make([]byte, e.fileBytes())
	if _, err := io.ReadFull(file, buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errDamaged
		}
		return nil, err
	}
	n := e.headerBytes()
	if !bytes.Equal(buf[:n], e.appendHeader(make([]byte, 0, maxHeaderBytes))) {
		return nil, errDamaged
	}
	blob := buf[n:len(buf):len(buf)]
	return blob, e.checkBlob(blob)
}

// present reports cheaply whether e's file is there in full length.
func (d *disk) present(e *entry) bool {
	stat, err := d.fs.lstat(d.path(e))
	return err == nil && stat.Mode().IsRegular() && stat.Size() == e.fileBytes()
}

// remove deletes e's file; lastOfTenant also takes the tenant's directory away where it is empty by now.
func (d *disk) remove(e *entry, lastOfTenant bool) error {
	path := d.path(e)
	if err := d.fs.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if lastOfTenant {
		_ = d.fs.remove(filepath.Dir(path)) // fails, rightly, when a new object is being written there
	}
	return nil
}
