// Package defaults is the numbers that a policy, the compressor and its devices must agree on, once. policy and compress do not import
// each other: both take them from here, and so a profile that leaves a key out means the preset of its method.
package defaults

// What a page is compressed with where a policy does not say.
const (
	Ratio = 0.5

	ChunkMin      = 64
	ChunkMax      = 96
	PaperChunkMin = 16
	PaperChunkMax = 64

	Sinks          = 4
	Recent         = 32
	RecentWeighted = 16 // of weighted, whose recent tokens are dear to merge anyway

	Exact         = 0.25
	ExactWeighted = 0.5 // of weighted
	ExactEqual    = 0.5 // with the budget equal
)

// Bounds of what a policy may ask for.
const (
	MaxChunk      = 1024 // tokens; a chunk's similarities are a square
	MaxHeadWeight = 64   // and its reciprocal is the least: beyond it weights would leave their 16 bits
)
