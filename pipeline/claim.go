package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
)

// Claims lets the makers of one object in several processes know of each other. Claim reports whether the caller is to
// make the object, and gives it a way to say that it is done; a claim ends by itself after its life.
type Claims interface {
	Claim(ctx context.Context, key store.Key, life time.Duration) (release func(), mine bool)
}

const (
	claimWait = 2 * time.Second  // for somebody else's work, at most; then it is done again
	claimLife = 10 * time.Second // of a claim whose owner died
	firstLook = 10 * time.Millisecond
	lastLook  = 100 * time.Millisecond
)

// inFlight are the objects that this process makes at the moment.
type inFlight struct {
	mu      sync.Mutex
	running map[store.Key]chan struct{}
}

// take reports whether nobody here makes the object; otherwise finished closes when whoever does is done.
func (f *inFlight) take(key store.Key) (finished <-chan struct{}, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if done, ok := f.running[key]; ok {
		return done, false
	}
	if f.running == nil {
		f.running = map[store.Key]chan struct{}{}
	}
	f.running[key] = make(chan struct{})
	return nil, true
}

func (f *inFlight) finish(key store.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.running[key])
	delete(f.running, key)
}

// claim waits while somebody else makes the object, here or in another process, and reports when it is there. The wait is
// bounded and nothing depends on it: who has waited long enough makes the object as well, which is harmless. done is to
// be called when the object is made, or will not be.
func (p *Pipeline) claim(ctx context.Context, j *job, key store.Key, d *policy.Decision) (done func(), found bool, err error) {
	done = func() {}
	if p.cfg.Store == nil || d.Plan.Untouched() {
		return done, false, nil
	}
	limit := time.NewTimer(claimWait)
	defer limit.Stop()
	for {
		finished, mine := p.inFlight.take(key)
		if mine {
			break
		}
		select {
		case <-finished:
		case <-limit.C:
			return done, false, nil
		case <-ctx.Done():
			return done, false, ctx.Err()
		}
		if found, err := p.stored(ctx, j, key, d); found || err != nil {
			return done, found, err
		}
	}
	release, found, err := p.claimRemote(ctx, j, key, d, limit)
	done = func() {
		release()
		p.inFlight.finish(key)
	}
	if found || err != nil {
		done()
		done = func() {}
	}
	return done, found, err
}

// claimRemote is claim among processes.
func (p *Pipeline) claimRemote(ctx context.Context, j *job, key store.Key, d *policy.Decision, limit *time.Timer) (release func(), found bool, err error) {
	release = func() {}
	if p.cfg.Claims == nil {
		return release, false, nil
	}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		release, mine := p.cfg.Claims.Claim(ctx, key, claimLife)
		if mine && pause == firstLook {
			return release, false, nil
		}
		// Somebody else has it, or had it a moment ago: what was made is there now.
		if found, err := p.stored(ctx, j, key, d); found || err != nil || mine {
			return release, found, err
		}
		look := time.NewTimer(pause)
		select {
		case <-look.C:
		case <-limit.C:
			look.Stop()
			return release, false, nil
		case <-ctx.Done():
			look.Stop()
			return release, false, ctx.Err()
		}
	}
}
