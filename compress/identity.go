package compress

import "fmt"

// AlgorithmVersion names what [Compressor.Compress] makes of a page under given options. It is part of every stored object's
// key, so that a sidecar never serves what an older one made differently. Raise it with every change after which the same
// options give other cores: TestDefaultsGiveTheCoresOfTheirVersion fails until it is.
const AlgorithmVersion = 7

// Identity says in one line all that decides about the cores of a page beside the page itself: the version and every option.
// It is a part of keys, not a format: two options are alike where their identities are.
func (o *Options) Identity() string {
	plain := *o
	plain.Progress, plain.MaxScratch = nil, 0 // one watches; the other follows from the page, which the key has too
	return fmt.Sprintf("v%d %+v", AlgorithmVersion, plain)
}
