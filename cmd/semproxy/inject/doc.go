// Package inject puts the sidecar into manifests: what the chart's admission policy does to a pod when it is created, done to the pod
// templates of a stream of YAML before it is applied. What a pod is given is not known here; it is read from the chart's own output.
package inject
