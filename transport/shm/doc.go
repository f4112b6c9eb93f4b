// Package shm carries pages between a sender and the sidecar of the same machine in shared memory; NATS carries only
// descriptors of a few hundred bytes.
//
// The sender makes a region (a sealed memfd, or a file under /dev/shm) and hands it to the sidecar over a Unix socket.
// It writes a page into a block of the region and sends the block's [Descriptor] in a header of an ordinary request. The
// sidecar copies the page out with pread, lays the reply in the block that the sender set aside for it, and says so in
// the reply's header. docs/page-plane.md has the protocol for programs in other languages.
//
// What keeps it safe: the sidecar never maps a region, because a mapping that another process cuts short kills a Go
// process; it copies, checks every length, and checks the block's generation before and after. Which tenant a region
// belongs to is settled over NATS, where permissions hold: the sender proves that it may speak as the tenant by sending
// the challenge of its socket on the tenant's subject. A region ends with its sender's socket.
//
// [Server] is the sidecar's side, [Session] the sender's. Both are for Linux; elsewhere they say so.
package shm
