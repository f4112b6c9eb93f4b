// Package watch keeps a policy in step with the files it was written in.
//
// A [Watcher] loads a file or a directory once, then follows it: every change is noticed, read whole, compiled, and published
// whole through one atomic pointer. A bad change publishes nothing: the last good policy stays, the failure is counted and
// shown in [Status], and the next good content takes over. Content is compared, so touching a file is no reload.
//
// Directories are watched rather than files, because the two usual ways to replace a file never write to it: editors rename
// a new file over the old one, and the kubelet swaps the symbolic link ..data of a ConfigMap. A slow poll stands behind the
// notifications, for file systems that send none.
package watch
