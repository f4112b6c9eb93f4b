package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/proxy/reload"
)

// Keys are the API keys of a file:
//
//	keys:
//	  - { name: acme-web, tenant: acme, sha256: 5e88... }
//
// The file is read again when it changes; a bad change keeps the last good keys.
type Keys struct {
	file *reload.File[keySet]
}

// keySet finds a hash by its first bytes and compares the rest in constant time.
type keySet map[[8]byte][]keyEntry

type keyEntry struct {
	hash   [sha256.Size]byte
	tenant string
}

// OpenKeys reads the file. now may be nil.
func OpenKeys(path string, log *slog.Logger, now func() time.Time) (*Keys, error) {
	file, err := reload.Open(path, parseKeys, log, now)
	if err != nil {
		return nil, err
	}
	return &Keys{file}, nil
}

// parseKeys reports every problem with its line, and never a hash.
func parseKeys(path string, data []byte) (keySet, error) {
	var spec struct {
		Keys []struct {
			Name   string `yaml:"name"`
			Tenant string `yaml:"tenant"`
			SHA256 string `yaml:"sha256" strict:"secret"`
		} `yaml:"keys"`
	}
	doc, err := strict.Decode(path, data, &spec)
	if err != nil {
		return nil, err
	}
	var problems []*strict.Error
	set, seen := keySet{}, map[[sha256.Size]byte]int{}
	for i, k := range spec.Keys {
		at := strict.Index("keys", i)
		if !tenantName.MatchString(k.Tenant) {
			problems = append(problems, doc.Errorf(strict.Key(at, "tenant"), "must be 1 to 64 letters, digits, dashes or underscores, got %q", k.Tenant))
		}
		sum, err := hex.DecodeString(k.SHA256)
		if err != nil || len(sum) != sha256.Size {
			problems = append(problems, doc.Errorf(strict.Key(at, "sha256"), "must be 64 hexadecimal digits, as `semproxy keys hash` prints them"))
			continue
		}
		hash := [sha256.Size]byte(sum)
		if first, dup := seen[hash]; dup {
			problems = append(problems, doc.Errorf(strict.Key(at, "sha256"), "is the same key as keys[%d]", first))
		}
		seen[hash] = i
		prefix := [8]byte(sum[:8])
		set[prefix] = append(set[prefix], keyEntry{hash, k.Tenant})
	}
	if len(spec.Keys) == 0 {
		problems = append(problems, doc.Errorf("keys", "must have at least one entry"))
	}
	return set, strict.Join(problems)
}

// Tenant is the tenant of a key.
func (k *Keys) Tenant(key string) (string, bool) {
	hash := sha256.Sum256([]byte(key))
	tenant, ok := "", false
	for _, e := range k.file.Get()[[8]byte(hash[:8])] {
		if subtle.ConstantTimeCompare(hash[:], e.hash[:]) == 1 {
			tenant, ok = e.tenant, true
		}
	}
	return tenant, ok
}

// leastKey is the shortest key that may be hashed so fast: 16 random bytes in base64.
const leastKey = 22

// HashKey is the hash of a key for a file of keys. A short key is refused: it could be guessed from its hash.
func HashKey(key string) (string, error) {
	if len(key) < leastKey {
		return "", errors.New("the key must have at least 22 characters; `semproxy keys new` makes a random one")
	}
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:]), nil
}

// NewKey makes a random key of 256 bits.
func NewKey() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	return "sp-" + base64.RawURLEncoding.EncodeToString(secret[:])
}
