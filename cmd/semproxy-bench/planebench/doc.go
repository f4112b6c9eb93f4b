// Package planebench measures the page plane beside the raw parts that it is made of, in one process and one run: a page
// inline, in shared memory and as a durable job; a bare NATS echo, a bare pread, a bare JetStream publish. Nothing is
// compressed: handlers give the page back, or acknowledge it.
package planebench
