// Package helm holds the chart helm/semproxy against a real Kubernetes control plane.
//
// kube-apiserver, kube-controller-manager, kube-scheduler, etcd and helm are built from their Go modules and run on this machine;
// kwok plays the kubelet, so that no container is run: what a container would run is started as a process with exactly the
// command, environment and files of the pod. Nothing here is mocked that the chart talks to.
//
// "make test-control-plane" builds the programs once, into the user's cache, and runs the tests.
package helm
