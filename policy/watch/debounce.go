package watch

import "time"

// debounce fires once things have been quiet for a while, and after ten times that at the latest.
type debounce struct {
	quiet time.Duration
	timer *time.Timer
	last  time.Time // when it fires at the latest; zero while nothing is pending
}

func newDebounce(quiet time.Duration) *debounce {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &debounce{quiet: quiet, timer: timer}
}

// push says that something happened.
func (d *debounce) push() {
	now := time.Now()
	if d.last.IsZero() {
		d.last = now.Add(10 * d.quiet)
	}
	d.timer.Reset(min(d.quiet, d.last.Sub(now)))
}

// C receives when it is time to act; call done then.
func (d *debounce) C() <-chan time.Time { return d.timer.C }

func (d *debounce) done() { d.last = time.Time{} }
func (d *debounce) stop() { d.timer.Stop() }
