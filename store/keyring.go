package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	masterBytes = 32
	maxKeyID    = 64
	keySuffix   = ".key"
	tenantsFile = "tenants"
	anyTenant   = "*"
	maxKeyFile  = 64 << 10
	// reloadEvery is how old the keys may be when they are used.
	reloadEvery = 5 * time.Second
)

// Keyring is the encryption keys of a folder: one file ID.key for each, which holds 32 bytes as they are, in
// hexadecimal or in base64, and one file named tenants, whose lines say with which key a tenant's new objects are
// encrypted:
//
//	# tenant  key
//	acme      acme-2
//	*         shared-1
//
// The tenant * stands for all that have no line; without it theirs are not encrypted. Keys that no line names are used
// for reading alone, so a key is retired by a new line and its file stays until what it encrypted has expired. The
// folder is read again when it is used and some seconds have passed; a folder with a mistake changes nothing.
type Keyring struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	keys   keyset
	read   time.Time
	broken string // what the last reading said, to log it once
}

type keyset struct {
	masters map[string][]byte // by id
	active  map[string]string // tenant -> id
}

// OpenKeyring reads the keys of dir. logger may be nil. Neither it nor an error ever sees a key.
func OpenKeyring(dir string, logger *slog.Logger) (*Keyring, error) {
	keys, err := readKeys(dir)
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Keyring{dir: dir, log: logger, keys: keys, read: time.Now()}, nil
}

// current is the keys to use now.
func (k *Keyring) current() keyset {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.read) >= reloadEvery {
		_ = k.reload() // logged; the last good keys stay
	}
	return k.keys
}

// Reload reads the folder now. On an error the keys stay as they were.
func (k *Keyring) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reload()
}

func (k *Keyring) reload() error {
	k.read = time.Now()
	keys, err := readKeys(k.dir)
	if err != nil {
		if k.broken != err.Error() {
			k.broken = err.Error()
			k.log.Error("encryption_keys_rejected", "error", err)
		}
		return fmt.Errorf("read encryption keys: %w", err)
	}
	k.keys, k.broken = keys, ""
	return nil
}

// of is the key for a tenant's new objects.
func (s keyset) of(tenant string) (id string, master []byte, ok bool) {
	id, ok = s.active[tenant]
	if !ok {
		id, ok = s.active[anyTenant]
	}
	return id, s.masters[id], ok
}

func readKeys(dir string) (keyset, error) {
	s := keyset{masters: map[string][]byte{}, active: map[string]string{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s, err
	}
	var problems []error
	for _, e := range entries {
		id, isKey := strings.CutSuffix(e.Name(), keySuffix)
		if !isKey || strings.HasPrefix(id, ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if !validKeyID(id) {
			problems = append(problems, fmt.Errorf("%s: the name of a key must have 1 to %d letters, digits, dots, dashes or underscores", path, maxKeyID))
			continue
		}
		master, err := readMaster(path)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		s.masters[id] = master
	}
	problems = append(problems, s.readTenants(filepath.Join(dir, tenantsFile))...)
	return s, errors.Join(problems...)
}

func validKeyID(id string) bool {
	return id != "" && len(id) <= maxKeyID && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

func readMaster(path string) ([]byte, error) {
	raw, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	if len(raw) == masterBytes {
		return raw, nil
	}
	text := string(bytes.TrimSpace(raw))
	if b, err := hex.DecodeString(text); err == nil && len(b) == masterBytes {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) == masterBytes {
		return b, nil
	}
	return nil, fmt.Errorf("%s: must hold %d bytes, as they are, in hexadecimal or in base64", path, masterBytes)
}

func (s *keyset) readTenants(path string) (problems []error) {
	text, err := readSmall(path)
	if err != nil {
		return []error{err}
	}
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		at := fmt.Sprintf("%s:%d", path, i+1)
		switch {
		case len(words) == 0:
			continue
		case len(words) != 2:
			problems = append(problems, fmt.Errorf("%s: must be a tenant and the name of a key", at))
			continue
		}
		tenant, id := words[0], words[1]
		if _, twice := s.active[tenant]; twice {
			problems = append(problems, fmt.Errorf("%s: tenant %s has a line already", at, tenant))
		}
		if s.masters[id] == nil {
			problems = append(problems, fmt.Errorf("%s: there is no key file %s%s", at, id, keySuffix))
		}
		s.active[tenant] = id
	}
	return problems
}

// readSmall reads a file that must not be long.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: must not be longer than %d bytes", path, maxKeyFile)
	}
	return os.ReadFile(path)
}
