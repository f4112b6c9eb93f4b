// Package proxy is semproxy's admin listener: health, readiness with its reasons, Prometheus metrics, the version, and an
// API that shows tenants, policies and the last requests, on a port of its own that no client of the engine needs to reach.
// The request plane itself is package forward below it.
//
// [ListenAdmin] binds, [Admin.Serve] serves until its context ends: the address is known before the first request, and
// a test binds port 0.
package proxy
