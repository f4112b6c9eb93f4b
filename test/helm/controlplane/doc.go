// Package controlplane runs a Kubernetes control plane on loopback for tests: etcd on a Unix socket, the API server on a port that
// the system chose, the controllers, the scheduler, and kwok in the kubelet's place. [Build] makes the programs, [Start] runs
// them in a folder of their own, [Cluster.Stop] ends them and removes it.
package controlplane
