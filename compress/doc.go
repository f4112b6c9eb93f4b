// Package compress merges the tokens of a KV-cache page that mean the same.
//
// Per layer and head (or per layer, when heads share their clusters): keys are un-rotated, the furthest outliers are kept
// exactly, the rest is cut into chunks at delimiters, greedy seed-based clustering (GSC) runs inside each chunk at the
// threshold that meets the budget, and every cluster becomes one core: a key, a value, a count. A core's log count is the
// bias that proportional attention adds to its logit. The idea is SemantiCache's (arXiv 2603.14303); what its abstract
// leaves open was settled by experiment (docs/explanation/algorithm.md).
//
// A page goes through seven phases (compressor.go), each of which gets the page and what earlier phases found:
//
//	learning    learn.go    what later queries get from the page         -> lessons
//	comparing   compare.go  chunks, similar tokens, tokens to keep       -> similarities
//	            scores.go   which tokens deserve to be kept exactly
//	            prices.go   what it costs to merge each of the others
//	budgeting   budget.go   how similar is similar enough                -> thresholds
//	clustering  cluster.go  which tokens become one core                 -> clusters
//	merging     merge.go    the cores                                    -> Result
//	fitting     fit.go      the cores, moved to give what was learned
//	rounding    fp8.go      the cores in 8 bits
//
// The package is pure: it does no I/O, logs nothing and imports only the standard library. [Compressor] is the fast path
// (float32, parallel, no allocation per page in steady state); the package oracle holds the float64 definition that it is
// tested against.
package compress
