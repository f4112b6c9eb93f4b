package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

// Mark says what a stored object stands for: from some place of a sequence to another one, in some of the layers. A
// place is a digest of everything up to it, see docs/reference/store.md.
type Mark struct {
	To         string // place where it ends
	Tokens     int    // between the two places
	LayerFirst int
	Layers     int
	Object     string
}

const (
	// MarkLife is how long a mark is kept of an object that never expires, after it was last put.
	MarkLife = 7 * 24 * time.Hour
	// MaxMarks bounds the marks at one place.
	MaxMarks = 4096
)

// Name tells marks of one place apart: a later object with the same name takes the earlier one's place.
func (m Mark) Name() string {
	return fmt.Sprintf("%d:%d:%d:%s", m.LayerFirst, m.Layers, m.Tokens, m.To)
}

// Marks keeps marks in memory, for a store that belongs to one process. They are bounded, and gone with the process.
type Marks struct {
	below Store
	mu    sync.Mutex // of the maps
	cache *otter.Cache[Key, map[string]markUntil]
}

type markUntil struct {
	Mark
	until time.Time
}

// NewMarks keeps marks of below's objects, in about maxBytes.
func NewMarks(below Store, maxBytes int64) (*Marks, error) {
	const each = 512 // bytes of a mark, about
	cache, err := newCache[Key](maxBytes, func(at map[string]markUntil) int { return each * len(at) })
	if err != nil {
		return nil, err
	}
	return &Marks{below: below, cache: cache}, nil
}

// Mark notes that an object follows place, for opt.TTL; 0 or less: MarkLife. Marks in memory have a bound of their own, and no
// quota.
func (s *Marks) Mark(_ context.Context, tenant, place string, m Mark, opt PutOptions) error {
	life := opt.TTL
	key := Key{tenant, place}
	if err := key.Validate(); err != nil {
		return err
	}
	if life <= 0 {
		life = MarkLife
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.cache.GetIfPresent(key)
	at := maps.Clone(old)
	if at == nil {
		at = map[string]markUntil{}
	}
	now := time.Now()
	maps.DeleteFunc(at, func(_ string, u markUntil) bool { return now.After(u.until) })
	if _, again := at[m.Name()]; again || len(at) < MaxMarks {
		at[m.Name()] = markUntil{m, now.Add(life)}
	}
	s.cache.Set(key, at)
	return nil
}

// Marked returns the marks at each of the places, of objects that are stored.
func (s *Marks) Marked(ctx context.Context, tenant string, places []string) ([][]Mark, error) {
	found := make([][]Mark, len(places))
	for i, place := range places {
		at, _ := s.cache.GetIfPresent(Key{tenant, place})
		for _, u := range at {
			_, err := s.below.Stat(ctx, Key{tenant, u.Object})
			switch {
			case err == nil:
				found[i] = append(found[i], u.Mark)
			case !errors.Is(err, ErrNotFound):
				return nil, err
			}
		}
	}
	return found, nil
}
