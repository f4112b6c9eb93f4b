package simd

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// guarded is memory of n elements right behind which nothing may be read.
func guarded[T any](t *testing.T, n int) []T {
	t.Helper()
	var zero T
	page, size := os.Getpagesize(), n*int(unsafe.Sizeof(zero))
	whole := (size + page - 1) / page * page
	mem, err := syscall.Mmap(-1, 0, whole+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mem) })
	if err := syscall.Mprotect(mem[whole:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[whole-size])), n)
}

// A short chunk beside long ones, the last of its page, has no rows where theirs go on.
func TestSimilaritiesAreNotReadBehindTheirEnd(t *testing.T) {
	const threshold = 1000 // few join, so that the second half of a long chunk has seeds of its own
	r := rand.New(rand.NewPCG(21, 22))
	for _, k := range All() {
		for _, ld := range []int{64, 128} {
			for _, last := range []int{1, ld / 2, ld} {
				rows, words := []int{ld, ld, last}, ld/64
				sim := guarded[int16](t, (2*ld+last)*ld)
				for i := range sim {
					sim[i] = int16(r.IntN(2049) - 1024)
				}
				starts, live := guarded[int](t, len(rows)), guarded[uint64](t, len(rows)*words)
				want, at := 0, 0
				for c, n := range rows {
					starts[c] = at
					free := make([]bool, n)
					for i := range free {
						free[i] = true
						live[c*words+i/64] |= 1 << (i % 64)
					}
					want += clusters(sim[at:], ld, free, threshold)
					at += n * ld
				}
				if got := k.Count(sim, ld, starts, live, threshold); got != want {
					t.Fatalf("%s: %d clusters with a last chunk of %d, want %d", k.Name, got, last, want)
				}
				order, dst := guarded[uint16](t, last), guarded[int16](t, last*ld)
				for i := range order {
					order[i] = uint16(last - 1 - i)
				}
				k.Reorder(dst, sim[2*ld*ld:], ld, order)
				keys := guarded[uint64](t, last)
				for i := range keys {
					keys[i] = uint64(last - i)
				}
				k.Rank(order, keys)
				if int(order[0]) != last-1 {
					t.Fatalf("%s: of %d keys, %d is the smallest, want the last", k.Name, last, order[0])
				}
			}
		}
	}
}
