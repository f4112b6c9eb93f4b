// Package store keeps compressed objects: the cores of one sequence under one policy, as one blob of bytes.
//
// An object is written once under a content-addressed [Key] and read back whole. [Files] is the embedded store: each
// object is one file, written beside its final place, checksummed and renamed, so that a reader sees all of it or none
// of it, with the recently used ones in memory. With no directory it keeps everything in memory and nothing survives
// the process. Consumers declare the few methods that they need; every store passes the suite in store/storetest.
//
// A file that does not check out (a flipped bit, a truncation, a foreign name) is a miss, never data: it is counted and
// removed. Objects expire by their TTL. The limits are enforced by evicting the oldest first: a tenant over its quota
// loses its own oldest objects, a store over its total loses the oldest of all.
package store
