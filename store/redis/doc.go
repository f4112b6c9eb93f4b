// Package redis keeps compressed objects in Redis, where several sidecars share them: one server, a cluster, or a
// master that sentinels watch.
//
// An object is a manifest that holds it, or a manifest and tiles of 1 MiB, all under the hash tag {tenant:object}, so that
// a cluster keeps them in one slot. What is written first has a short life; one script then gives it its real life and its
// name, or does nothing. So a reader sees all of an object or none of it, and what a killed writer left behind goes by
// itself. Each digest is in the manifest and is checked on every read: what is missing or not what was written makes the
// object a miss, which is counted and removed.
//
// What a tenant holds is kept under the hash tag {tenant}: a script there adds an object and chooses the oldest ones that
// have to go for it. On one server it is the same script that makes the object visible, so that a put is one round trip. In
// a cluster the two slots cannot change together: the account comes first, and a process that dies in between leaves an
// account that says too much; the sweeper compares both sides and repairs it.
//
// A server that does not answer is left alone for a while after a few failures (a circuit breaker per server), so that
// it costs a page no more than a small bounded time. docs/reference/store.md describes the keys and the failures.
package redis
