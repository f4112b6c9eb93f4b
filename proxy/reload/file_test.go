package reload_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/reload"
)

func TestAFileIsReadAgainWhenItChangesAndABadChangeKeepsTheLastGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		next := path + ".new" // as an editor does: a new file renamed over the old one
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(_ string, data []byte) (string, error) {
		if text := string(data); text != "bad" {
			return text, nil
		}
		return "", errors.New("bad content")
	}
	var log bytes.Buffer
	now := time.Unix(1000, 0)
	open := func() (*reload.File[string], error) {
		return reload.Open(path, parse, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	}
	if _, err := open(); err == nil {
		t.Error("no file: got nil, want an error")
	}
	write("bad")
	if _, err := open(); err == nil {
		t.Error("a bad file: got nil, want an error")
	}
	write("one")
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	step := func(change, want string) {
		t.Helper()
		switch change {
		case "":
		case "remove":
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		default:
			write(change)
		}
		if got := f.Get(); got == change {
			t.Errorf("got %q within the second, want what was there", got)
		}
		now = now.Add(time.Second)
		if got := f.Get(); got != want {
			t.Errorf("after %q: got %q, want %q", change, got, want)
		}
	}
	step("two", "two")
	step("bad", "two")
	step("", "two")
	step("remove", "two")
	step("", "two")
	step("three", "three")
	if got := strings.Count(log.String(), "file_rejected"); got != 2 {
		t.Errorf("got %d rejections in the log, want 2: one for each bad state\n%s", got, log.String())
	}
}
