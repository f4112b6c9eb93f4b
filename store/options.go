package store

import "time"

// PutOptions are the limits that one Put brings along, from the tenant's policy.
type PutOptions struct {
	TTL   time.Duration // life of the object from now; 0 or less: it never expires
	Quota int64         // bytes that all objects of the tenant may hold together; 0: no limit
}

// Info describes a stored object.
type Info struct {
	Size    int64     // bytes of the blob
	Created time.Time // when this content was put
	Expires time.Time // zero: never
	Version string    // another one for every content that was written under the key
}

// FilesOptions configure a store. The zero value is useful.
type FilesOptions struct {
	// MemoryBytes bounds the memory cache over the files. 0: 64 MiB. Negative: no cache. Without a directory it has no meaning.
	MemoryBytes int64
	// MaxBytes bounds the blobs of all tenants together. 0: no limit with files, 256 MiB without.
	MaxBytes int64
	// MaxObjects bounds their number. 0: one million.
	MaxObjects int
	// Sync forces each object to the disk before Put returns, so that it also outlives a power loss.
	// Without it an object outlives the process, however it ends, but not the machine.
	Sync bool
	// SweepEvery is how often expired objects are removed in the background. 0: one minute.
	SweepEvery time.Duration
	// Clock tells the time for creation and expiry. nil: time.Now.
	Clock func() time.Time
}

func (o FilesOptions) withDefaults(memoryOnly bool) FilesOptions {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 64 << 20
	}
	if memoryOnly {
		o.MemoryBytes = -1
		if o.MaxBytes == 0 {
			o.MaxBytes = 256 << 20
		}
	}
	if o.MaxObjects <= 0 {
		o.MaxObjects = 1_000_000
	}
	if o.SweepEvery <= 0 {
		o.SweepEvery = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}

// Stats are counters since the store was opened, and what it holds now.
type Stats struct {
	Objects int
	Bytes   int64

	Hits       uint64 // Gets that found the object
	MemoryHits uint64 // those of them that touched no file
	Misses     uint64 // Gets that did not
	Damaged    uint64 // objects lost because their file did not check out
	Expired    uint64 // objects removed because their time was over
	Evicted    uint64 // objects removed to keep a limit
}
