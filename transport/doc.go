// Package transport is the page plane: it takes KV pages off NATS, hands each to a [Handler] and sends the answer back.
//
// A sender makes a request on kv.<tenant>.v1.compress, .get or .stat and keeps its page until the reply comes. Any sidecar
// of the queue group "semproxy" may serve it. The tenant is the second token of the subject and nothing else: never a
// header, never the body, because only the subject is guarded by NATS permissions.
//
// One message goes through four steps, each in a file of its own:
//
//  1. receive (server.go): parse the subject, check where the reply would go;
//  2. admit (admission.go): the tenant's rate and bytes, the bytes of all tenants, the length of the queue. What does not
//     fit is answered at once with a retryable code and a time to wait; nothing is queued without a bound;
//  3. work (worker.go): a fixed number of workers takes pages from the tenants in turn (queue order within a tenant),
//     so a tenant that fills the queue delays itself and not the others;
//  4. reply (reply.go): the status in headers, the body as it is.
//
// [Server.Drain] stops taking messages and answers every one that has reached the process. [Embedded] starts a
// nats-server inside the process for a machine that has none; [Connect] joins one that is there. The Go client is in
// transport/client, the wire format of a page in transport/page; this package treats bodies as bytes.
package transport
