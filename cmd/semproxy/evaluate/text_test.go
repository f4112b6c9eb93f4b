package evaluate

import (
	"strings"
	"testing"
)

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestATextThatNeverEndsIsRefused(t *testing.T) {
	if _, err := readAll("/dev/zero", endless{}); err == nil || !strings.Contains(err.Error(), "/dev/zero: ") || !strings.Contains(err.Error(), "256 MiB") {
		t.Errorf("got %v, want the name and the bound", err)
	}
	if data, err := readAll("a.txt", strings.NewReader("abc")); err != nil || string(data) != "abc" {
		t.Errorf("got %q, %v", data, err)
	}
}
