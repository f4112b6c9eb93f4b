package store

import (
	"bytes"
	"testing"
	"time"
)

func FuzzParseHeader(f *testing.F) {
	good := meta{key: Key{"acme", "0123456789abcdef"}, size: 7, created: 1, expires: 2}
	f.Add(good.appendHeader(nil))
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseHeader(b)
		if err != nil {
			return
		}
		if again := m.appendHeader(nil); !bytes.HasPrefix(b, again) {
			t.Errorf("header written again: got %x, want %x", again, b)
		}
	})
}

func TestFileNamesRoundTrip(t *testing.T) {
	object, seq, ok := parseFileName(fileName("0123456789abcdef", 0xffffffffffffffff))
	if !ok || object != "0123456789abcdef" || seq != 0xffffffffffffffff {
		t.Errorf("got %s, %x, %v, want the name's parts", object, seq, ok)
	}
	for _, name := range []string{"", ".obj", "LOCK", "0123456789abcdef.obj", "0123456789abcdef-1.obj", "XYZ-0000000000000001.obj", "0123456789abcdef-000000000000000g.obj"} {
		if _, _, ok := parseFileName(name); ok {
			t.Errorf("%q: got accepted, want refused", name)
		}
	}
}

func TestALifePastTheEndOfTimeIsForever(t *testing.T) {
	files, err := OpenMemory(FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Close() }()
	key := Key{"acme", "0123456789abcdef"}
	if err := files.Put(t.Context(), key, []byte("x"), PutOptions{TTL: time.Duration(1<<63 - 1)}); err != nil {
		t.Fatal(err)
	}
	info, err := files.Stat(t.Context(), key)
	if err != nil || !info.Expires.IsZero() {
		t.Errorf("Stat: got %v, %v, want an object that never expires", info, err)
	}
}
