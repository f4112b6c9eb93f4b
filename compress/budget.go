package compress

import "sync/atomic"

// thresholds are what meets the budget.
type thresholds struct {
	threshold []int32 // [groups], what is at least so similar merges
	quota     []int   // [groups], clusters that each may have, where the budget is met to the core
}

// budgeting is the phase that finds the thresholds.
type budgeting struct {
	pg    *page
	near  *similarities
	found thresholds
	try   int          // the threshold that all groups are counted at
	limit int64        // of cores over all groups
	spent atomic.Int64 // cores counted so far, over all groups

	groupTask, poolTask, countTask func(worker, i int)
}

func newBudgeting() *budgeting {
	b := new(budgeting)
	b.groupTask, b.poolTask, b.countTask = b.meetBudget, b.meetPool, b.countGroup
	return b
}

// run needs no similarities for a page that is kept whole.
func (b *budgeting) run(pg *page, near *similarities) *thresholds {
	b.pg, b.near = pg, near
	b.found.threshold, b.found.quota = grow(b.found.threshold, pg.groups), grow(b.found.quota, pg.groups)
	switch {
	case pg.Whole(), pg.opt.Rest != Cluster:
		b.all(Unmerged)
	case pg.opt.Budget == Fixed:
		b.all(floor(pg.opt.Threshold * ThresholdSteps))
	case pg.opt.Budget == Equal:
		slots, _ := pg.Budget()
		for g := range b.found.quota {
			b.found.quota[g] = slots
		}
		pg.each(pg.groups, b.groupTask)
	case pg.opt.Pooled():
		pg.each(pg.groups/pg.Pool(), b.poolTask)
	default:
		b.all(b.meetTotal())
	}
	return &b.found
}

// all gives every group the same threshold.
func (b *budgeting) all(t int) {
	for g := range b.found.threshold {
		b.found.threshold[g] = int32(t)
	}
}

// meetPool bisects one threshold for the groups that share a budget, those of a layer or of the page, for their largest clusterings
// that, each rounded up to whole granules, stay within the total, and gives the granules that are left to the groups that merge
// most.
func (b *budgeting) meetPool(_, i int) {
	pg, quota, pool := b.pg, b.found.quota, b.pg.Pool()
	first := i * pool
	slots, _ := pg.Budget()
	total := pool * slots
	rounded := func(t int) (sum int) {
		for g := first; g < first+pool; g++ {
			var spent atomic.Int64
			quota[g] = pg.Round(b.near.count(pg.kernel, g, t, &spent, int64(total)))
			sum += quota[g]
		}
		return sum
	}
	lo, hi := pg.Lowest(), ThresholdSteps+1
	for hi-lo > 1 {
		if t := floor(float64(lo+hi) / 2); rounded(t) <= total {
			lo = t
		} else {
			hi = t
		}
	}
	sum := rounded(lo)
	for granule := max(pg.opt.Granule, 1); ; sum += granule {
		most := -1
		for g := first; g < first+pool; g++ {
			if pg.Round(quota[g]+1) > quota[g] && (most < 0 || quota[g] < quota[most]) {
				most = g
			}
		}
		if most < 0 || sum+granule > total {
			break
		}
		quota[most] += granule
	}
	for g := first; g < first+pool; g++ {
		b.found.threshold[g] = int32(lo)
	}
}

// meetBudget bisects one group's threshold for the largest clustering within the budget. Count is only nearly monotone
// in the threshold, so the path of the bisection is part of the definition.
func (b *budgeting) meetBudget(_, g int) {
	slots := b.found.quota[g]
	lo, hi := b.pg.Lowest(), ThresholdSteps+1
	best, bestCount := lo, b.near.least(g)
	for hi-lo > 1 {
		t := floor(float64(lo+hi) / 2)
		var spent atomic.Int64
		if n := b.near.count(b.pg.kernel, g, t, &spent, int64(slots)); n <= slots {
			if n >= bestCount || bestCount > slots {
				best, bestCount = t, n
			}
			lo = t
		} else {
			hi = t
		}
	}
	b.found.threshold[g] = int32(best)
}

// meetTotal bisects one threshold for all groups, so that the total over layers and heads meets the budget.
func (b *budgeting) meetTotal() int {
	slots, _ := b.pg.Budget()
	lo, hi := b.pg.Lowest(), ThresholdSteps+1
	for hi-lo > 1 {
		t := floor(float64(lo+hi) / 2)
		if total := b.pg.groups * slots; b.countAll(t, total) <= total {
			lo = t
		} else {
			hi = t
		}
	}
	return lo
}

// countAll returns the number of cores of all groups at threshold t. Once that is certain to exceed limit the counting stops: the
// result is then some number above it.
func (b *budgeting) countAll(t, limit int) int {
	b.try, b.limit = t, int64(limit)
	b.spent.Store(0)
	b.pg.each(b.pg.groups, b.countTask)
	return int(b.spent.Load())
}

func (b *budgeting) countGroup(_, g int) { b.near.count(b.pg.kernel, g, b.try, &b.spent, b.limit) }

func floor(x float64) int {
	n := int(x)
	if float64(n) > x {
		n--
	}
	return n
}
