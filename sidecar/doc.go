// Package sidecar is everything that runs in production, wired: the page plane, the pipeline, the store, the proxy and the admin
// listener of one process. [Start] starts the parts of a configuration in their order; [Sidecar.Run] serves until its context ends,
// then drains; what has started is stopped last first. The commands of cmd/semproxy, tests and other programs run it the same way.
//
// The configuration is sidecar/config. Tests that need a running sidecar have sidecar/sidecartest.
package sidecar
