package pipeline

import (
	"fmt"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
)

// What a page may cost, by its bytes. Everything is known from the page's shape, so that a page which costs more is refused
// before anything is allocated for it. A small page is given what one of leastBytes may use.
const (
	memoryPerByte = 12       // bytes
	memoryFixed   = 64 << 20 // bytes, in all
	workPerByte   = 4096     // multiply-adds: less than two seconds of a core per MiB (docs/explanation/reliability.md)
	leastBytes    = 256 << 10
	copies        = 3 // of a result: the compressor's, packed, and the reply
)

// CostlyError refuses a page whose shape asks for more than its bytes may cost. It is final.
type CostlyError struct {
	What      string  // memory or work
	Need, May float64 // bytes or multiply-adds
}

// Code is page.too_costly.
func (*CostlyError) Code() string { return codes.PageTooCostly }

func (e *CostlyError) Error() string {
	return fmt.Sprintf("a page of this shape needs %s of %.3g under the tenant's policy, and one of its size may use %.3g: send fewer queries or fewer tokens per page",
		e.What, e.Need, e.May)
}

// afford chooses the compressor's options and holds what the page will cost against its bytes.
func (j *job) afford(plan *policy.Profile) error { return j.affordSize(j.in.Size(), plan) }

func (j *job) affordSize(size compress.Size, plan *policy.Profile) error {
	j.opt = options(plan, j.page.Folded, j.page.Granule)
	opt := &j.opt
	if plan.Method == policy.MethodNone {
		exact := exactOptions()
		opt = &exact
	}
	if plan.Method == policy.MethodNone { // attention is not measured
		size.QHeads, size.Queries = 0, 0
	}
	cost := size.Cost(opt)
	bytes := float64(max(len(j.blob), leastBytes))
	beside := int64(len(j.blob)) + copies*cost.Result
	j.need = beside + cost.Scratch
	may := int64(memoryPerByte)*int64(len(j.blob)) + memoryFixed
	if j.need > may {
		return &CostlyError{What: "bytes of memory", Need: float64(j.need), May: float64(may)}
	}
	j.opt.MaxScratch = may - beside
	j.work = workPerByte * bytes
	if cost.First > j.work {
		return &CostlyError{What: "multiply-adds", Need: cost.First, May: j.work}
	}
	j.work -= cost.First
	j.another = cost.Again
	return nil
}

// spend takes a further attempt from what the page may cost; false where that is used up.
func (j *job) spend() bool {
	j.work -= j.another
	return j.work >= 0
}

// exactOptions make every token its own core.
func exactOptions() compress.Options {
	opt := compress.Semantic()
	opt.Ratio = 1
	return opt
}
