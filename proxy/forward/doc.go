// Package forward is the request plane: a reverse proxy that stands in front of an inference engine.
//
// For each request [Proxy] finds the tenant, holds it to its limits, reads what a JSON body asks for, lets the policy and
// the cost gate decide whether the prompt's KV is to be compressed, tells the engine so in members that no client can send
// itself, and passes the answer on as it comes, event by event. What happened is in the answer's headers, in a trace, in
// metrics and in the ring of recent requests; message content is in none of them.
//
// [Listen] binds and [Server.Serve] serves. handle.go has the life of a request.
package forward
