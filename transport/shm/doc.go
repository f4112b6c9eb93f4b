// Package shm carries pages between a sender and the sidecar of the same machine in shared memory; NATS carries only
// descriptors of a few hundred bytes, and after the first proof not even those.
//
// The sender makes a region (a sealed memfd, or a file under /dev/shm) and hands it to the sidecar over a Unix socket.
// It writes a page into a block of the region and sends the block's [Descriptor] in a header of an ordinary request, or by
// the socket itself ([Session.Exchange]), which takes half the time. The sidecar copies the page out, lays the reply in the
// block that the sender set aside for it, and says so in the reply's header. docs/reference/page-plane.md has the protocol for programs in other languages.
//
// What keeps it safe: the sidecar maps only memory that is sealed against being cut short, and reads files with pread, because
// a mapping that another process cuts short kills a process; it copies, checks every length, and checks the block's generation
// before and after. Which tenant a region
// belongs to is settled over NATS, where permissions hold: the sender proves that it may speak as the tenant by sending
// the challenge of its socket on the tenant's subject, again every few minutes if pages come by the socket. A region ends with
// its sender's socket.
//
// [Server] is the sidecar's side, [Session] the sender's. Both are for Linux; elsewhere they say so.
package shm
