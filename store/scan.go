package store

import (
	"cmp"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// scan indexes the directory from the headers alone: it returns the whole objects, oldest first, and the number of
// damaged ones. What a killed process left behind (temporary files, older versions) and damaged files are removed.
// Files that the store did not name are left alone.
func (d *disk) scan() (found []*entry, damaged int, err error) {
	tenants, err := d.fs.readDir(d.dir)
	if err != nil {
		return nil, 0, err
	}
	current := map[Key]*entry{}
	for _, tenant := range tenants {
		name := tenant.Name()
		if !tenant.IsDir() || (!strings.HasPrefix(name, "t-") && !strings.HasPrefix(name, "h-")) {
			continue
		}
		bad, err := d.scanTenant(name, current)
		if err != nil {
			return nil, 0, err
		}
		damaged += bad
	}
	for _, e := range current {
		found = append(found, e)
	}
	slices.SortFunc(found, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.seq, b.seq))
	})
	return found, damaged, nil
}

func (d *disk) scanTenant(name string, current map[Key]*entry) (damaged int, err error) {
	dir := filepath.Join(d.dir, name)
	files, err := d.fs.readDir(dir)
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name())
		if strings.HasPrefix(file.Name(), tempPrefix) {
			_ = d.fs.remove(path)
			continue
		}
		object, seq, ours := parseFileName(file.Name())
		if !ours || !file.Type().IsRegular() {
			continue
		}
		m, err := d.readHeader(path)
		if err == nil && (m.key.Object != object || tenantDir(m.key.Tenant) != name) {
			err = errDamaged
		}
		if err != nil {
			damaged++
			if errors.Is(err, errDamaged) {
				_ = d.fs.remove(path)
			}
			continue
		}
		e := &entry{meta: m, seq: seq}
		if other := current[m.key]; other != nil {
			if other.seq > e.seq {
				e, other = other, e
			}
			_ = d.fs.remove(d.path(other))
		}
		current[m.key] = e
	}
	_ = d.fs.remove(dir) // only an empty one goes
	return damaged, nil
}

// readHeader reads and checks a file's header and length, not its blob.
func (d *disk) readHeader(path string) (meta, error) {
	file, err := d.fs.open(path)
	if err != nil {
		return meta{}, err
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return meta{}, err
	}
	var buf [maxHeaderBytes]byte
	n, err := io.ReadFull(file, buf[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return meta{}, err
	}
	m, err := parseHeader(buf[:n])
	if err == nil && stat.Size() != m.fileBytes() {
		err = errDamaged
	}
	return m, err
}
