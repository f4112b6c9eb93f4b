package watch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDebounceWaitsForQuietButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDebounce(100 * time.Millisecond)
		defer d.stop()
		start := time.Now()
		d.push()
		time.Sleep(60 * time.Millisecond)
		d.push()
		<-d.C()
		d.done()
		if got, want := time.Since(start), 160*time.Millisecond; got != want {
			t.Errorf("quiet: got fired after %v, want %v", got, want)
		}

		start = time.Now()
		for fired := false; !fired; {
			d.push()
			select {
			case <-d.C():
				fired = true
			case <-time.After(50 * time.Millisecond):
			}
		}
		if got, want := time.Since(start), time.Second; got != want {
			t.Errorf("never quiet: got fired after %v, want %v", got, want)
		}
	})
}
