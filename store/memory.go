package store

import "bytes"

// ram is the backend of a store without files: the blob lives in the entry.
type ram struct{}

func (ram) write(e *entry, blob []byte) error {
	e.blob = bytes.Clone(blob)
	return nil
}

func (ram) read(e *entry) ([]byte, error) { return e.blob[:len(e.blob):len(e.blob)], nil }
func (ram) present(*entry) bool           { return true }
func (ram) remove(*entry, bool) error     { return nil }
func (ram) scan() ([]*entry, int, error)  { return nil, 0, nil }
func (ram) close() error                  { return nil }
