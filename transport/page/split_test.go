package page_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/semproxy/semproxy/transport/page"
)

// wide is a page whose elements tell where they are from.
func wide(layers, heads, tokens, dim int) *page.Page {
	kv := func(add uint16) []byte {
		b := make([]byte, 0, 2*layers*heads*tokens*dim)
		for i := range layers * heads * tokens * dim {
			b = binary.LittleEndian.AppendUint16(b, uint16(i/dim)%4096+add) // small BF16 numbers
		}
		return b
	}
	ids, positions, marks := make([]int32, tokens), make([]int64, tokens), make([]byte, tokens)
	for i := range tokens {
		ids[i], positions[i], marks[i] = int32(7*i), int64(100+2*i), byte(i%3)
	}
	importance := make([]byte, 0, 4*layers*heads*tokens)
	for i := range layers * heads * tokens {
		importance = binary.LittleEndian.AppendUint32(importance, math.Float32bits(float32(i)))
	}
	return &page.Page{
		Model: "llama", Sequence: "s", Layout: "test", LayerFirst: 3, TokensTotal: tokens + 9, Pages: 1,
		Rope: page.Rope{Type: "default", Theta: 10000, RotaryDim: dim}, DType: page.BF16,
		Layers: layers, KVHeads: heads, Tokens: tokens, HeadDim: dim, K: kv(0), V: kv(1),
		TokenIDs: page.IntsOf(ids), Positions: page.Ints64Of(positions), Boundary: marks, Protect: marks,
		Importance: importance,
		Q:          bytes.Repeat([]byte{0, 0x3f}, layers*2*heads*5*dim), QDType: page.BF16, QHeads: 2 * heads, Window: 5,
	}
}

func TestAPageIsSplitByLayersThenByTokens(t *testing.T) {
	whole := wide(4, 2, 100, 8)
	blob, err := whole.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		most           int64
		layers, tokens int // of the largest piece
	}{
		{"it fits", int64(2 * len(blob)), 4, 100},
		{"three layers", 4096 + 100*14 + 3*100*2*48 + 3*(16+320) + 900, 3, 100},
		{"one layer", 4096 + 100*14 + 100*2*48 + 336 + 100, 1, 100},
		{"a range of whole blocks", 4096 + 90*(2*48+14) + 336, 1, 80},
		{"less than a block", 4096 + 40 + 11*(2*48+14) + 336, 1, 11},
	} {
		pieces, err := whole.Split(c.most)
		if err != nil {
			t.Fatalf("%s: got %v, want nil", c.name, err)
		}
		seen := map[[3]int]bool{}
		for i, piece := range pieces {
			blob, err := piece.Append(nil)
			if err != nil {
				t.Fatalf("%s: piece %d: %v", c.name, i, err)
			}
			got, err := page.Decode(blob, page.DefaultLimits())
			if err != nil {
				t.Fatalf("%s: piece %d does not decode: %v", c.name, i, err)
			}
			if int64(len(blob)) > c.most || got.Layers > c.layers || got.Tokens > c.tokens || got.Page != i || got.Pages != len(pieces) {
				t.Errorf("%s: piece %d: %d bytes, %d layers, %d tokens, page %d of %d", c.name, i, len(blob), got.Layers, got.Tokens, got.Page, got.Pages)
			}
			row := 2 * got.HeadDim
			for l := range got.Layers {
				for h := range got.KVHeads {
					for k := range got.Tokens {
						layer, token := got.LayerFirst-3+l, got.TokenFirst+k
						from, to := ((l*got.KVHeads+h)*got.Tokens+k)*row, ((layer*2+h)*100+token)*row
						needed := math.Float32frombits(binary.LittleEndian.Uint32(got.Importance[4*((l*got.KVHeads+h)*got.Tokens+k):]))
						if needed != float32((layer*2+h)*100+token) || !bytes.Equal(got.K[from:from+row], whole.K[to:to+row]) || !bytes.Equal(got.V[from:from+row], whole.V[to:to+row]) ||
							got.TokenIDs.At(k) != whole.TokenIDs.At(token) || got.Positions.At(k) != whole.Positions.At(token) ||
							got.Boundary[k] != whole.Boundary[token] || got.Protect[k] != whole.Protect[token] {
							t.Fatalf("%s: piece %d: layer %d, head %d, token %d is not the page's", c.name, i, l, h, k)
						}
						seen[[3]int{layer, h, token}] = true
					}
				}
			}
			if len(got.Q) != got.Layers*4*5*row {
				t.Errorf("%s: piece %d: %d bytes of queries", c.name, i, len(got.Q))
			}
			if got.Tokens < 100 {
				for i := range 5 {
					if got.QPositions.Len() != 5 || got.QPositions.At(i) != whole.Positions.At(95+i) {
						t.Fatalf("%s: piece %d: the queries are not said to be of the page's last tokens", c.name, i)
					}
				}
			}
			checkLink(t, whole, got)
		}
		if len(seen) != 4*2*100 || len(pieces) == 0 || pieces[0].Layers != c.layers || pieces[0].Tokens != c.tokens {
			t.Errorf("%s: %d rows in %d pieces, the first of %d layers and %d tokens; want all, %d and %d", c.name, len(seen), len(pieces),
				pieces[0].Layers, pieces[0].Tokens, c.layers, c.tokens)
		}
	}
	var fault *page.Error
	if _, err := whole.Split(4200); !errors.As(err, &fault) || fault.Code() != page.CodeTooLarge {
		t.Errorf("room for nothing: got %v, want %s", err, page.CodeTooLarge)
	}
}

// checkLink holds a piece's place in the chain against the whole page's tokens.
func checkLink(t *testing.T, whole, piece *page.Page) {
	t.Helper()
	want := page.RootLink(page.DefaultBlock, "")
	for at := 0; at+page.DefaultBlock <= piece.TokenFirst; at += page.DefaultBlock {
		want = want.Next(page.DefaultBlock, func(i int) int64 { return whole.TokenIDs.At(at + i) })
	}
	span, located, err := piece.Span()
	switch whole := piece.TokenFirst%page.DefaultBlock == 0; {
	case err != nil:
		t.Errorf("tokens from %d: %v", piece.TokenFirst, err)
	case whole && piece.Tokens%page.DefaultBlock == 0 && (!located || span.From != want):
		t.Errorf("tokens from %d: got %v, %v, want the link there", piece.TokenFirst, span.From, located)
	case !whole && located:
		t.Errorf("tokens from %d, inside a block: got a link, want none", piece.TokenFirst)
	}
}
