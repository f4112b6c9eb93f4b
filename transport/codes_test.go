package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestWhichCodesAreRetryable(t *testing.T) {
	for code, want := range map[string]bool{
		"busy": true, "draining": true, "deadline": true, "store.unavailable": true, "limit.rate": true, "limit.bytes": true,
		"page.bad_shape": false, "page.too_large": false, "reply.too_large": false, "policy.denied": false, "gone": false,
		"stale": false, "not_found": false, "internal": false, "subject.invalid": false, "": false,
	} {
		if got := Retryable(code); got != want {
			t.Errorf("Retryable(%q): got %v, want %v", code, got, want)
		}
	}
}

func TestWhatATenantSeesOfAnError(t *testing.T) {
	expired, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	draining, stop := context.WithCancelCause(context.Background())
	stop(errDraining)
	shape := &Error{code: "page.bad_shape", text: "k has 3 dimensions, want 4"}
	for name, row := range map[string]struct {
		ctx    context.Context
		err    error
		code   string
		text   string
		hidden bool
	}{
		"a coded error as it is":             {context.Background(), shape, "page.bad_shape", shape.text, false},
		"not the text that wraps it":         {context.Background(), fmt.Errorf("open secret.key: %w", shape), "page.bad_shape", shape.text, false},
		"nothing of an error without code":   {context.Background(), errors.New("dial 10.0.0.1"), "internal", internalText, true},
		"nothing of a malformed code":        {context.Background(), &Error{code: "Bad\r\nX: y", text: "x"}, "internal", internalText, true},
		"one line, printable":                {context.Background(), &Error{code: "gone", text: "a\r\nb\x00c\xff"}, "gone", "a  b c?", false},
		"an expired context is a deadline":   {expired, context.DeadlineExceeded, "deadline", deadlineText, false},
		"a handler's own timeout, too":       {context.Background(), fmt.Errorf("x: %w", context.DeadlineExceeded), "deadline", deadlineText, false},
		"a context cancelled by the drain":   {draining, context.Canceled, "draining", drainingText, false},
		"cancelled by nobody is a fault":     {context.Background(), context.Canceled, "internal", internalText, true},
		"a code wins over the context's end": {expired, shape, "page.bad_shape", shape.text, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, hidden := publicError(row.ctx, row.err)
			if got.Code() != row.code || got.Error() != row.text || hidden != row.hidden {
				t.Errorf("got %s %q hidden %v, want %s %q hidden %v", got.Code(), got.Error(), hidden, row.code, row.text, row.hidden)
			}
		})
	}
}

func TestALongSentenceIsCut(t *testing.T) {
	got := sentence(strings.Repeat("ä", 1000))
	if len(got) > maxSentence+3 || !strings.HasSuffix(got, "...") {
		t.Errorf("got %d bytes ending in %q, want at most %d ending in ...", len(got), got[len(got)-3:], maxSentence+3)
	}
}

func TestHeaderCarrierIgnoresCaseAndWritesLowerCase(t *testing.T) {
	for _, key := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		c := HeaderCarrier{key: {"v"}}
		if got := c.Get("traceparent"); got != "v" {
			t.Errorf("Get of header %q: got %q, want v", key, got)
		}
		c.Set("TraceParent", "new")
		if got := fmt.Sprint(map[string][]string(c)); got != "map[traceparent:[new]]" {
			t.Errorf("Set over header %q: got %s, want it alone, in lower case", key, got)
		}
	}
	if got := HeaderCarrier(nil).Get("traceparent"); got != "" {
		t.Errorf("Get without headers: got %q, want empty", got)
	}
	if got := (HeaderCarrier{"a": {"1"}}).Keys(); len(got) != 1 || got[0] != "a" {
		t.Errorf("Keys: got %v, want [a]", got)
	}
}
