// Package proxy is semproxy's HTTP side. For now it has the admin listener: health, readiness with its reasons,
// Prometheus metrics, the version, and a read-only view of policies and tenants, on a port of its own that no client
// of the engine needs to reach.
//
// [ListenAdmin] binds, [Admin.Serve] serves until its context ends: the address is known before the first request, and
// a test binds port 0.
package proxy
