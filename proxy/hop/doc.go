// Package hop sends a request over HTTP/1.1 to one engine and reads its answer, in the goroutine that asks.
//
// net/http's Transport has two goroutines for each connection, so that it can send a body of any length while it reads, and the two hand
// every request and answer over to the one that asks. Most requests to an engine are short, and are in memory whole: they fit into the
// connection's buffers, so they can be written first and the answer be read then. A [Transport] does that with them, and gives all others to
// the http.Transport that it is made of. What HTTP's corners ask for is in a suite of tests that both pass.
package hop
