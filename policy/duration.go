package policy

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span, written as 90s, 24h, 1h30m or 7d (a day is 24 hours).
type Duration time.Duration

// DurationPattern is the regular expression of a written Duration, for the schema.
const DurationPattern = `^([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))*$`

var errDuration = errors.New("must be a duration such as 90s, 24h or 7d")

// UnmarshalText reads a span longer than zero.
func (d *Duration) UnmarshalText(text []byte) error {
	rest, total := string(text), time.Duration(0)
	if days, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !digits(days) || n > 100_000 {
			return errDuration
		}
		total, rest = time.Duration(n*float64(24*time.Hour)), after
	}
	if rest != "" {
		t, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest, "+-") || total+t < total {
			return errDuration
		}
		total += t
	}
	if total <= 0 {
		return errDuration
	}
	*d = Duration(total)
	return nil
}

// String writes the span without units that are zero: 24h, not 24h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
