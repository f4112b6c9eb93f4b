package redis

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	goredis "github.com/redis/go-redis/v9"
)

// manifest reads the manifest of an object: errNoManifest when there is none, errDamaged when it is not what was written.
func (s *Store) manifest(ctx context.Context, object string) (*manifest, error) {
	values, err := s.values(ctx, object, fields)
	if err != nil {
		return nil, err
	}
	return parseManifest(object, values)
}

// contents is manifest, and the blob if it is in the manifest's hash.
func (s *Store) contents(ctx context.Context, object string) (*manifest, string, error) {
	values, err := s.values(ctx, object, fieldsAndBlob)
	if err != nil {
		return nil, "", err
	}
	m, err := parseManifest(object, values[:len(fields)])
	blob, _ := values[len(fields)].(string)
	return m, blob, err
}

var fieldsAndBlob = append(slices.Clone(fields), blobField)

func (s *Store) values(ctx context.Context, object string, names []string) ([]any, error) {
	values, err := s.client.HMGet(ctx, manifestKey(object), names...).Result()
	switch {
	case goredis.HasErrorPrefix(err, "WRONGTYPE"), err == nil && len(values) != len(names):
		return nil, errDamaged
	}
	return values, err
}

func missing(err error) bool { return errors.Is(err, errNoManifest) || errors.Is(err, errDamaged) }

// parallel calls f for 0 to n-1, a few at a time, and returns the first error, which also ends the others' context.
func parallel(ctx context.Context, n, limit int, f func(ctx context.Context, i int) error) error {
	if n == 1 {
		return f(ctx, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, limit) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}
