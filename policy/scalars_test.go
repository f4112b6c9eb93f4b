package policy_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/semproxy/semproxy/policy"
)

const hour = policy.Duration(time.Hour)

func TestByteSize(t *testing.T) {
	pattern := regexp.MustCompile(policy.ByteSizePattern)
	for text, want := range map[string]policy.ByteSize{
		"1": 1, "1048576": 1 << 20, "12B": 12, "256MiB": 256 << 20, "256Mi": 256 << 20, "20GiB": 20 << 30, "1.5KiB": 1536, "1.5GB": 15e8,
		"3TB": 3e12, "2Ti": 2 << 40,
	} {
		var got policy.ByteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", text, got, err, want)
		}
		if !pattern.MatchString(text) {
			t.Errorf("%s: the schema's pattern does not match", text)
		}
		written, err := got.MarshalText()
		var again policy.ByteSize
		if err != nil || again.UnmarshalText(written) != nil || again != got {
			t.Errorf("%s: written as %q, read as %d, want %d", text, written, again, got)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "1e3", "0", "0GiB", "0.3B", "1.5", "256 MiB", "256mib", "1.KiB", ".5KiB", "99999999TiB", "9223372036854775808"} {
		var got policy.ByteSize
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
	for size, want := range map[policy.ByteSize]string{256 << 20: "256MiB", 1 << 40: "1TiB", 1500: "1500B", 0: "0B", 1536: "1536B"} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %q, want %q", int64(size), got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	pattern := regexp.MustCompile(policy.DurationPattern)
	for text, want := range map[string]policy.Duration{
		"24h": 24 * hour, "90s": hour / 40, "1h30m": hour + hour/2, "7d": 168 * hour, "1d12h": 36 * hour, "0.5d": 12 * hour, "1ms": hour / 3600000,
	} {
		var got policy.Duration
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
		if !pattern.MatchString(text) {
			t.Errorf("%s: the schema's pattern does not match", text)
		}
		written, err := got.MarshalText()
		var again policy.Duration
		if err != nil || again.UnmarshalText(written) != nil || again != got {
			t.Errorf("%s: written as %q, read as %v, want %v", text, written, again, got)
		}
	}
	for _, text := range []string{"", "5", "0s", "-1h", "+1h", "d", "1h1d", "1w", "tomorrow", "99999999d", "1d-1h", "2562047h48m1d"} {
		var got policy.Duration
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
	for d, want := range map[policy.Duration]string{24 * hour: "24h", hour + hour/60: "1h1m", hour / 360: "10s", 10 * hour / 60: "10m"} {
		if got := d.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
