package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/semproxy/semproxy/codes"
)

// The errors of a store, for errors.Is. Each has a stable Code() string.
var (
	// ErrNotFound (not_found): no such object, or it has expired or was damaged.
	ErrNotFound error = &codeError{codes.NotFound, "object not found"}
	// ErrTooLarge (store.too_large): the object alone is over the tenant's quota or the store's limit. Final.
	ErrTooLarge error = &codeError{codes.StoreTooLarge, "object is over the storage limit"}
	// ErrBadKey (store.bad_key): the key is not a tenant and a lower-case hex digest. Final.
	ErrBadKey error = &codeError{codes.StoreBadKey, "bad object key"}
	// ErrUnavailable (store.unavailable): the storage underneath failed: full, read-only, gone. Retryable.
	ErrUnavailable error = &codeError{codes.StoreAway, "store is unavailable"}
	// ErrSealed (store.sealed): the object is encrypted with a key that this process does not have. Final.
	ErrSealed error = &codeError{codes.StoreSealed, "object is encrypted with a key that is not here"}
	// ErrClosed (store.unavailable): the store was closed. Retryable: another process may serve the object.
	ErrClosed error = &codeError{codes.StoreAway, "store is closed"}
)

type codeError struct{ code, text string }

func (e *codeError) Error() string { return e.text }

// Code is the stable, machine-readable name of the error.
func (e *codeError) Code() string { return e.code }

// unavailable wraps a failure of the file system. The path is dropped: the error may travel to a client, and local
// paths are none of its business. errors.Is still finds the cause (syscall.ENOSPC and the like).
func unavailable(op string, err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	var sysErr *os.SyscallError
	switch {
	case errors.As(err, &pathErr):
		err = pathErr.Err
	case errors.As(err, &linkErr):
		err = linkErr.Err
	case errors.As(err, &sysErr):
		err = sysErr.Err
	}
	return fmt.Errorf("%s: %w: %w", op, ErrUnavailable, err)
}
