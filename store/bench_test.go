package store_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

var benchSizes = []int{64 << 10, 1 << 20, 8 << 20}

// How far is a checksummed, renamed, accounted Put from the plainest write of the same bytes?
func BenchmarkPut(b *testing.B) {
	for _, size := range benchSizes {
		blob := storetest.Blob(1, size)
		b.Run(fmt.Sprintf("size=%dKiB/to=plain_file", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i%16)), blob, 0o600); err != nil {
					b.Fatal(err)
				}
			}
		})
		for name, opt := range map[string]store.FilesOptions{"files": {MemoryBytes: -1}, "files_and_cache": {}} {
			b.Run(fmt.Sprintf("size=%dKiB/to=%s", size>>10, name), func(b *testing.B) {
				benchPut(b, openFiles(b, b.TempDir(), opt), blob)
			})
		}
		b.Run(fmt.Sprintf("size=%dKiB/to=memory", size>>10), func(b *testing.B) { benchPut(b, openFiles(b, "", store.FilesOptions{}), blob) })
		b.Run(fmt.Sprintf("size=%dKiB/to=repeat", size>>10), func(b *testing.B) {
			files := openFiles(b, b.TempDir(), store.FilesOptions{MemoryBytes: -1})
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				put(b, files, testKey("a"), blob, store.PutOptions{})
			}
		})
	}
}

func benchPut(b *testing.B, files *store.Files, blob []byte) {
	b.SetBytes(int64(len(blob)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(blob, uint64(i)) // other content each time: no repeat
		put(b, files, store.Key{Tenant: "acme", Object: fmt.Sprintf("%08x", i%16)}, blob, store.PutOptions{})
	}
}

// What does a read cost from the file, checked, and from memory?
func BenchmarkGet(b *testing.B) {
	for _, size := range benchSizes {
		for name, memory := range map[string]int64{"file": -1, "memory": 64 << 20} {
			b.Run(fmt.Sprintf("size=%dKiB/from=%s", size>>10, name), func(b *testing.B) {
				files := openFiles(b, b.TempDir(), store.FilesOptions{MemoryBytes: memory})
				put(b, files, testKey("a"), storetest.Blob(1, size), store.PutOptions{})
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := files.Get(b.Context(), testKey("a")); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
