package gpu

import (
	"math"
	"sync"

	"github.com/semproxy/semproxy/compress"
)

// table holds cosines and sines of whole distances as bytes of float32, [rows, half].
type table struct {
	rows     int
	cos, sin []byte
}

// tables keeps the tables of the models seen last: pages of one model follow each other.
type tables struct {
	mu   sync.Mutex
	rope []compress.Rope
	kept []*table
}

const mostTables = 8

// of is the table of a model for distances below rows. freq are its frequencies, none when keys stay rotated.
func (t *tables) of(rope compress.Rope, freq []float64, rows int) *table {
	if len(freq) == 0 {
		return new(table)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range t.rope {
		if r == rope && t.kept[i].rows >= rows {
			return t.kept[i]
		}
	}
	made := newTable(freq, max(rows, compress.MaxChunk))
	t.rope, t.kept = append(t.rope, rope), append(t.kept, made)
	if len(t.kept) > mostTables {
		t.rope, t.kept = t.rope[1:], t.kept[1:]
	}
	return made
}

func newTable(freq []float64, rows int) *table {
	n := rows * len(freq)
	t := &table{rows: rows, cos: make([]byte, 4*n), sin: make([]byte, 4*n)}
	cos, sin := view[float32](t.cos), view[float32](t.sin)
	for r := range rows {
		for i, f := range freq {
			s, c := math.Sincos(float64(r) * f)
			cos[r*len(freq)+i], sin[r*len(freq)+i] = float32(c), float32(s)
		}
	}
	return t
}
