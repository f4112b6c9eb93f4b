package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// A sealed object is
//
//	 0  magic          8 bytes
//	 8  length of the key's id, 1 byte
//	 9  the key's id   64 bytes, padded with zeros
//	73  salt           16 bytes
//	89  ciphertext, and the tag of 16 bytes
//
// AES-256-GCM with a key and a nonce of its own, both derived from the tenant's key and the salt by HKDF-SHA-256. The
// salt is the first half of an HMAC over the object's name and content: equal content under one name gives equal bytes,
// so that a repeated Put is still a repeat, and no pair of key and nonce ever serves two contents. The additional data
// is everything before the ciphertext, the tenant and the object: a sealed object that is moved or relabelled does not open.
const (
	sealMagic    = "SEMSEAL1"
	saltBytes    = 16
	tagBytes     = 16
	nonceBytes   = 12
	sealHeader   = len(sealMagic) + 1 + maxKeyID + saltBytes
	sealOverhead = sealHeader + tagBytes
)

// SealedStats are counters since the store was opened.
type SealedStats struct {
	Sealed  uint64 // Puts that were encrypted
	Missing uint64 // Gets of objects whose key is not here
	Refused uint64 // Gets of objects that did not open with the key that they name, or that should have been encrypted
}

// Sealed encrypts what a store keeps, for the tenants whose keyring says so. A tenant's quota counts what is stored: 105
// bytes per object more.
type Sealed struct {
	below Store
	keys  *Keyring

	sealed, missing, refused atomic.Uint64
}

var _ Store = (*Sealed)(nil)

// NewSealed puts encryption in front of below, which belongs to the result from then on.
func NewSealed(below Store, keys *Keyring) *Sealed { return &Sealed{below: below, keys: keys} }

// Put encrypts the blob where the tenant has a key, and stores it.
func (s *Sealed) Put(ctx context.Context, key Key, blob []byte, opt PutOptions) error {
	id, master, ok := s.keys.current().of(key.Tenant)
	if !ok {
		return s.below.Put(ctx, key, blob, opt)
	}
	sealed, err := seal(key, id, master, blob)
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	if err := s.below.Put(ctx, key, sealed, opt); err != nil {
		return err
	}
	s.sealed.Add(1)
	return nil
}

// Get returns the object's bytes, decrypted; ErrSealed when its key is not here.
func (s *Sealed) Get(ctx context.Context, key Key) ([]byte, error) {
	blob, _, err := s.Fetch(ctx, key)
	return blob, err
}

// Fetch is Get and Stat of one version. What is not encrypted although the tenant's objects are, is not found: it was
// put before that was so, or by somebody else.
func (s *Sealed) Fetch(ctx context.Context, key Key) ([]byte, Info, error) {
	stored, info, err := s.below.Fetch(ctx, key)
	if err != nil {
		return nil, Info{}, err
	}
	keys := s.keys.current()
	if !isSealed(stored) {
		if _, _, must := keys.of(key.Tenant); must {
			s.refused.Add(1)
			return nil, Info{}, fmt.Errorf("get object: %w", ErrNotFound)
		}
		return stored, info, nil
	}
	master := keys.masters[sealedBy(stored)]
	if master == nil {
		s.missing.Add(1)
		return nil, Info{}, fmt.Errorf("get object: %w", ErrSealed)
	}
	blob, err := unseal(key, master, stored)
	if err != nil {
		s.refused.Add(1)
		return nil, Info{}, fmt.Errorf("get object: %w", ErrSealed)
	}
	info.Size = int64(len(blob))
	return blob, info, nil
}

// Stat describes the object without reading it.
func (s *Sealed) Stat(ctx context.Context, key Key) (Info, error) {
	info, err := s.below.Stat(ctx, key)
	if _, _, ok := s.keys.current().of(key.Tenant); ok && err == nil {
		info.Size = max(0, info.Size-int64(sealOverhead))
	}
	return info, err
}

// Delete removes the object.
func (s *Sealed) Delete(ctx context.Context, key Key) error { return s.below.Delete(ctx, key) }

// Usage is that of the store below.
func (s *Sealed) Usage(ctx context.Context, tenant string) (objects int, bytes int64, err error) {
	return s.below.Usage(ctx, tenant)
}

// Stats is a snapshot of the counters.
func (s *Sealed) Stats() SealedStats {
	return SealedStats{Sealed: s.sealed.Load(), Missing: s.missing.Load(), Refused: s.refused.Load()}
}

// Close closes the store below.
func (s *Sealed) Close() error { return s.below.Close() }

func isSealed(b []byte) bool {
	return len(b) >= sealOverhead && string(b[:len(sealMagic)]) == sealMagic
}

// sealedBy is the id of the key; empty when it cannot be one.
func sealedBy(b []byte) string {
	n, id := int(b[len(sealMagic)]), b[len(sealMagic)+1:]
	if n > maxKeyID {
		return ""
	}
	return string(id[:n])
}

func seal(key Key, id string, master, blob []byte) ([]byte, error) {
	out := make([]byte, sealHeader, sealOverhead+len(blob))
	copy(out, sealMagic)
	out[len(sealMagic)] = byte(len(id))
	copy(out[len(sealMagic)+1:], id)
	salting, err := hkdf.Expand(sha256.New, master, "semproxy.store.salt.1", sha256.Size)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, salting)
	mac.Write(additional(key, nil))
	mac.Write(blob)
	copy(out[sealHeader-saltBytes:], mac.Sum(nil)[:saltBytes])
	aead, nonce, err := cipherOf(master, out[sealHeader-saltBytes:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, nonce, blob, additional(key, out)), nil
}

func unseal(key Key, master, sealed []byte) ([]byte, error) {
	header := sealed[:sealHeader]
	aead, nonce, err := cipherOf(master, header[sealHeader-saltBytes:])
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nonce, sealed[sealHeader:], additional(key, header))
}

// cipherOf is the cipher of one object.
func cipherOf(master, salt []byte) (cipher.AEAD, []byte, error) {
	own, err := hkdf.Key(sha256.New, master, salt, "semproxy.store.object.1", masterBytes+nonceBytes)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(own[:masterBytes])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, own[masterBytes:], err
}

// additional is what a sealed object is bound to: its header and its name.
func additional(key Key, header []byte) []byte {
	b := append([]byte(nil), header...)
	for _, s := range []string{key.Tenant, key.Object} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}
