package limit

import (
	"math"
	"time"
)

// bucket refills at rate per second up to burst. It may go below zero: a reply that used more tokens than were expected
// has to be paid for all the same, by whoever comes next. (x/time/rate refuses what is over its burst, and so cannot.)
type bucket struct {
	rate, burst, level float64
	at                 time.Time
	spent              float64 // since it was last shared
}

// set changes the limits; what is left stays, within the burst. A new bucket is full.
func (b *bucket) set(now time.Time, rate, burst float64) {
	if b.at.IsZero() {
		b.level, b.at = burst, now
	}
	b.refill(now)
	b.rate, b.burst = rate, burst
	b.level = min(b.level, burst)
}

func (b *bucket) refill(now time.Time) {
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.level, b.at = min(b.burst, b.level+d*b.rate), now
	}
}

// take takes n, or says how long until there is as much; more than the burst is taken as soon as the bucket is full.
func (b *bucket) take(now time.Time, n float64) (wait time.Duration, ok bool) {
	b.refill(now)
	need := min(n, b.burst)
	if b.level >= need {
		b.level -= n
		b.spent += n
		return 0, true
	}
	return time.Duration(math.Ceil((need - b.level) / b.rate * float64(time.Second))), false
}

// settle gives back n, or takes -n, whatever is left.
func (b *bucket) settle(now time.Time, n float64) {
	b.refill(now)
	b.level = min(b.burst, b.level+n)
	b.spent -= n
}

// share says what was spent since the last time; shared is given what was left of it then for all.
func (b *bucket) share() (spent float64) {
	spent, b.spent = b.spent, 0
	return spent
}

func (b *bucket) shared(now time.Time, left float64) {
	b.level, b.at = min(b.burst, left-b.spent), now
}
