package store

import "context"

// Store is what the stores of this package offer each other, so that one can be laid over another. Consumers declare
// the few methods that they need themselves.
type Store interface {
	// Put stores the blob and returns after the commit. The caller keeps the blob.
	Put(ctx context.Context, key Key, blob []byte, opt PutOptions) error
	// Get returns the object's bytes, which must not be written to.
	Get(ctx context.Context, key Key) ([]byte, error)
	// Fetch is Get and Stat of one version.
	Fetch(ctx context.Context, key Key) ([]byte, Info, error)
	// Stat describes the object without reading it.
	Stat(ctx context.Context, key Key) (Info, error)
	// Delete removes the object; one that is not there is no error.
	Delete(ctx context.Context, key Key) error
	// Usage is the number and the bytes of what the tenant stores.
	Usage(ctx context.Context, tenant string) (objects int, bytes int64, err error)
	// Close lets go of what the store holds; later calls get ErrClosed.
	Close() error
}

var _ Store = (*Files)(nil)
