package config

import "github.com/semproxy/semproxy/policy/strict"

// removedKey is a key that earlier versions had, and what holds in its place.
type removedKey struct{ path, now string }

// removed are those of 0.1. Whoever still sets one is told what became of it.
var removed = []removedKey{
	{"compress.gpu.batchLatency", "a page waits 200us for others"},
	{"jobs.deadBytes", "it is a quarter of jobs.maxBytes, and 1MiB at least"},
	{"jobs.maxDeliveries", "it is 100"},
	{"proxy.canary.maxLogprobDiff", "it is 0.5"},
	{"proxy.canary.maxTokens", "it is 32"},
	{"proxy.gate.kvInterval", "it is 2s"},
	{"proxy.limits.bufferedBytesPerTenant", "it is a quarter of proxy.limits.bufferedBytes, and twice proxy.limits.maxJsonBytes at least"},
	{"store.redis.checksum", "it is crc32c, and what has sha256 is still read; store.encryption defends against whoever may write to redis"},
}

// set is the problem that source, a file, variable or flag, sets the key.
func (r removedKey) set(source string) *strict.Error {
	return &strict.Error{File: source, Path: r.path, Problem: "was removed in 0.1: " + r.now + "; delete it"}
}

// nameRemoved says of unknown keys that were removed what became of them.
func nameRemoved(problems []*strict.Error) []*strict.Error {
	for _, p := range problems {
		for _, r := range removed {
			if p.Path == r.path {
				p.Problem = r.set(p.File).Problem
			}
		}
	}
	return problems
}
