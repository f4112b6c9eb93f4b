package bpe

import "container/heap"

// candidate is a pair of neighbours that a merge joins: the symbol at index at with the one after it.
type candidate struct {
	rank, at int
	left     string // what stood there when the candidate was found: a changed symbol makes it stale
	right    string
}

type queue []candidate

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].at < q[j].at
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(candidate)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// merge joins neighbours by rising rank, leftmost first, until no merge applies. It takes n log n steps, since a
// SentencePiece tokenizer takes a whole text as one piece.
func (e *Encoder) merge(symbols []string) []string {
	n := len(symbols)
	next, prev := make([]int, n), make([]int, n)
	for i := range n {
		next[i], prev[i] = i+1, i-1
	}
	var q queue
	find := func(i int) (candidate, bool) {
		if i < 0 || next[i] >= n {
			return candidate{}, false
		}
		pair := [2]string{symbols[i], symbols[next[i]]}
		rank, ok := e.ranks[pair]
		return candidate{rank: rank, at: i, left: pair[0], right: pair[1]}, ok
	}
	for i := range n {
		if c, ok := find(i); ok {
			q = append(q, c)
		}
	}
	heap.Init(&q)
	for q.Len() > 0 {
		c := heap.Pop(&q).(candidate)
		j := -1
		if symbols[c.at] == c.left {
			j = next[c.at]
		}
		if j < 0 || j >= n || symbols[j] != c.right {
			continue
		}
		symbols[c.at], symbols[j] = c.left+c.right, ""
		next[c.at] = next[j]
		if next[j] < n {
			prev[next[j]] = c.at
		}
		for _, i := range []int{prev[c.at], c.at} {
			if c, ok := find(i); ok {
				heap.Push(&q, c)
			}
		}
	}
	out := symbols[:0]
	for i := 0; i < n; i = next[i] {
		out = append(out, symbols[i])
	}
	return out
}
