package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

const (
	maxTenantBytes  = 128
	minObjectDigits = 8
	maxObjectDigits = 128
)

// Key names an object. Tenant is any non-empty string of at most 128 bytes; it is encoded before it becomes a path.
// Object is a lower-case hexadecimal digest of 8 to 128 digits.
type Key struct{ Tenant, Object string }

// Validate reports, with [ErrBadKey], a key that is not what Key says.
func (k Key) Validate() error {
	if k.Tenant == "" || len(k.Tenant) > maxTenantBytes {
		return fmt.Errorf("%w: tenant must have 1 to %d bytes, got %d", ErrBadKey, maxTenantBytes, len(k.Tenant))
	}
	if n := len(k.Object); n < minObjectDigits || n > maxObjectDigits {
		return fmt.Errorf("%w: object must have %d to %d hex digits, got %d", ErrBadKey, minObjectDigits, maxObjectDigits, n)
	}
	for i := range len(k.Object) {
		if c := k.Object[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%w: object must be lower-case hex digits", ErrBadKey)
		}
	}
	return nil
}

// tenantDir is the tenant's directory: its own name behind "t-" where that is harmless on every file system (a person
// can find it), else a digest behind "h-". The two never collide, nor do names that differ only in case.
func tenantDir(tenant string) string {
	if plainName(tenant) {
		return "t-" + tenant
	}
	sum := sha256.Sum256([]byte(tenant))
	return "h-" + hex.EncodeToString(sum[:16])
}

func plainName(s string) bool {
	if len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
