package delimiter

import (
	"sync"
	"time"
)

// Limits of a cache when [NewCache] is given none.
const (
	DefaultTables = 16               // tables kept
	DefaultRetry  = 30 * time.Second // how long a file that failed is not read again
)

// Cache gives the table of a file, reading each file once however many goroutines ask at the same time. It keeps at most a
// fixed number of tables and drops the one not used for longest; a failure is remembered for a while, so that a broken file
// is not read for every page. Safe for concurrent use. Create it with [NewCache].
type Cache struct {
	max   int
	retry time.Duration
	now   func() time.Time
	load  func(path string) (*Table, error)

	mu      sync.Mutex
	tick    uint64 // counts lookups: the order of use
	entries map[string]*entry
}

type entry struct {
	done  chan struct{} // closed when table or err is set
	table *Table
	err   error
	until time.Time // of a failure: when to try again
	used  uint64
}

// NewCache returns an empty cache. maxTables <= 0 means [DefaultTables].
func NewCache(maxTables int) *Cache {
	if maxTables <= 0 {
		maxTables = DefaultTables
	}
	return &Cache{max: maxTables, retry: DefaultRetry, now: time.Now, load: LoadFile, entries: make(map[string]*entry)}
}

// Table returns the table of the tokenizer.json at path. The error is that of [LoadFile].
func (c *Cache) Table(file string) (*Table, error) {
	e, mine := c.enter(file)
	if mine {
		e.table, e.err = c.load(file)
		e.until = c.now().Add(c.retry)
		close(e.done)
	}
	<-e.done
	return e.table, e.err
}

// Len is the number of files whose table, or failure, is held.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// enter finds the entry of a file, or makes one that the caller has to fill.
func (c *Cache) enter(file string) (e *entry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tick++
	if e := c.entries[file]; e != nil && !e.stale(c.now()) {
		e.used = c.tick
		return e, false
	}
	delete(c.entries, file)
	if len(c.entries) >= c.max {
		c.evict()
	}
	e = &entry{done: make(chan struct{}), used: c.tick}
	c.entries[file] = e
	return e, true
}

// evict forgets the entry not used for longest. Whoever waits for it or holds its table keeps it.
func (c *Cache) evict() {
	oldest := ""
	for file, e := range c.entries {
		if oldest == "" || e.used < c.entries[oldest].used {
			oldest = file
		}
	}
	delete(c.entries, oldest)
}

// stale reports a failure that is old enough to try again.
func (e *entry) stale(now time.Time) bool {
	select {
	case <-e.done:
		return e.err != nil && now.After(e.until)
	default:
		return false // still loading
	}
}
