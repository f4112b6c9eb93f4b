package page

import (
	"fmt"
	"testing"
)

// benchPage is one layer of llama-3-8b (8 KV heads of 128) in BF16: 4 KiB a token, K and V.
func benchPage(tokens int) *Page {
	at := make([]int32, tokens)
	for i := range at {
		at[i] = int32(i)
	}
	n := 8 * tokens * 128
	return &Page{
		Model: "llama-3-8b", Sequence: "bench", Layout: "hf.llama.LHTD", TokensTotal: tokens, Pages: 1,
		Rope: Rope{Type: "default", Theta: 500000, RotaryDim: 128}, DType: BF16,
		Layers: 1, KVHeads: 8, Tokens: tokens, HeadDim: 128,
		K: pattern(BF16, n, 1), V: pattern(BF16, n, 2), TokenIDs: IntsOf(at), Positions: IntsOf(at),
	}
}

func benchSizes(b *testing.B, run func(b *testing.B, p *Page, blob []byte)) {
	for _, tokens := range []int{16, 512, 2048} {
		p := benchPage(tokens)
		blob := encode(b, p)
		b.Run(fmt.Sprintf("%dKiB", len(blob)>>10), func(b *testing.B) {
			b.SetBytes(int64(len(blob)))
			b.ReportAllocs()
			run(b, p, blob)
		})
	}
}

// How fast is a page refused or accepted? The scan for NaN and Inf is the work.
func BenchmarkDecode(b *testing.B) {
	benchSizes(b, func(b *testing.B, _ *Page, blob []byte) {
		for b.Loop() {
			if _, err := Decode(blob, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// How fast is a page written into a buffer that is reused? A copy is the floor.
func BenchmarkAppend(b *testing.B) {
	benchSizes(b, func(b *testing.B, p *Page, blob []byte) {
		dst := make([]byte, 0, len(blob))
		for b.Loop() {
			if _, err := p.Append(dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What does the content address cost? SHA-256 is the work.
func BenchmarkDigest(b *testing.B) {
	benchSizes(b, func(b *testing.B, p *Page, _ []byte) {
		for b.Loop() {
			p.Digest()
		}
	})
}
