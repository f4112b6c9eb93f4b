package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/semproxy/semproxy/proxy/reload"
)

// parseKeySet reads a JSON Web Key Set. Keys that are not public keys are left out: a secret has no place there.
func parseKeySet(path string, data []byte) (*jose.JSONWebKeySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("%s: is not a JSON Web Key Set", path)
	}
	set := &jose.JSONWebKeySet{}
	for _, one := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(one, &key) == nil && key.Valid() && key.IsPublic() { // a kind that is not known here is left out too
			set.Keys = append(set.Keys, key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, fmt.Errorf("%s: has no public key", path)
	}
	return set, nil
}

func keysOf(set *jose.JSONWebKeySet, id string) []jose.JSONWebKey {
	if set == nil {
		return nil
	}
	if id == "" {
		return set.Keys
	}
	return set.Key(id)
}

// KeySetFile is a key set in a file, read again when it changes.
type KeySetFile struct {
	file *reload.File[*jose.JSONWebKeySet]
}

// OpenKeySet reads the file. now may be nil.
func OpenKeySet(path string, log *slog.Logger, now func() time.Time) (*KeySetFile, error) {
	file, err := reload.Open(path, parseKeySet, log, now)
	if err != nil {
		return nil, err
	}
	return &KeySetFile{file}, nil
}

// Keys is part of KeySource.
func (f *KeySetFile) Keys(id string) []jose.JSONWebKey { return keysOf(f.file.Get(), id) }

// KeySetURL is a key set that is fetched: at once, every refresh, and when an unknown key id is asked for, though not
// within wait of the last time, so that tokens with made-up ids cannot make it fetch at will.
type KeySetURL struct {
	url     string
	client  *http.Client
	log     *slog.Logger
	refresh time.Duration
	wait    time.Duration
	set     atomic.Pointer[jose.JSONWebKeySet]
	wanted  chan struct{}
}

// NewKeySetURL prepares; Run fetches. refresh 0: five minutes.
func NewKeySetURL(url string, log *slog.Logger, refresh time.Duration) *KeySetURL {
	if refresh <= 0 {
		refresh = 5 * time.Minute
	}
	return &KeySetURL{
		url: url, log: log, refresh: refresh, wait: min(10*time.Second, refresh), wanted: make(chan struct{}, 1),
		client: &http.Client{
			Timeout:       10 * time.Second,
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
		},
	}
}

// Keys is part of KeySource.
func (u *KeySetURL) Keys(id string) []jose.JSONWebKey {
	keys := keysOf(u.set.Load(), id)
	if len(keys) == 0 {
		select {
		case u.wanted <- struct{}{}:
		default:
		}
	}
	return keys
}

// Run fetches until ctx ends, then returns nil. A set that cannot be fetched or read keeps the last good one.
func (u *KeySetURL) Run(ctx context.Context) error {
	for {
		if err := u.fetch(ctx); err != nil && ctx.Err() == nil {
			u.log.Error("key_set_rejected", "error", err.Error(), "effect", "the last good key set stays in force")
		}
		pause := time.NewTimer(u.wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
		rest := time.NewTimer(max(0, u.refresh-u.wait))
		if u.set.Load() == nil {
			rest.Reset(0) // there is nothing yet to verify with
		}
		select {
		case <-ctx.Done():
			rest.Stop()
			return nil
		case <-rest.C:
		case <-u.wanted:
			rest.Stop()
		}
	}
}

func (u *KeySetURL) fetch(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := u.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch the key set: %s", response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, reload.MaxBytes))
	if err != nil {
		return fmt.Errorf("fetch the key set: %w", err)
	}
	set, err := parseKeySet(u.url, data)
	if err != nil {
		return err
	}
	u.set.Store(set)
	return nil
}
