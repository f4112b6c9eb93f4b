package strict

import (
	"slices"
	"strconv"
	"strings"
)

// Suggest returns a hint for a name that is not among known: `did you mean "rules"?` when one is near, else the list of
// what is known. It is empty when nothing is known.
func Suggest(name string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	best, bestDistance := "", len(name)/3+1
	if len(name) <= maxShown {
		for _, k := range known {
			if d := distance(strings.ToLower(name), strings.ToLower(k), bestDistance); d < bestDistance {
				best, bestDistance = k, d
			}
		}
	}
	if best != "" && bestDistance < len(best) {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	sorted := slices.Sorted(slices.Values(known))
	if len(sorted) > 20 {
		return "known are " + strings.Join(sorted[:20], ", ") + " and " + strconv.Itoa(len(sorted)-20) + " more"
	}
	return "known are " + strings.Join(sorted, ", ")
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string
// alignment); any number >= limit may be returned once limit is reached.
func distance(a, b string, limit int) int {
	if diff := len(a) - len(b); diff >= limit || -diff >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
