// Package chart tests the Helm chart without a cluster: what it renders is held against the OpenAPI of each Kubernetes version, its
// admission policies are evaluated by the API server's own code and compared with `semproxy inject`, and the sidecar's container is
// started as rendered. test/helm tests it with a cluster's control plane.
package chart
