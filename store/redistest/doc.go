// Package redistest starts real redis-server processes for tests and benchmarks: one server, a cluster of three
// masters, or a sentinel, on loopback ports that the system chooses, with their files in the test's own folder. They can be killed,
// started again on the same files, and put behind a proxy that stops. Everything ends with the test.
package redistest
