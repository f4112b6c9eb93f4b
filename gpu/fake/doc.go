// Package fake builds and controls a CUDA driver without a GPU, for tests.
//
// src holds a libcuda.so.1 whose kernels are the ones of gpu/kernels, compiled by g++; the threads of a block are fibers. So a
// test runs the real path, Go to driver to kernel, on any machine with g++. Threads, and streams, can be run in random order;
// faults can be injected; the library can be built with the address sanitizer.
package fake
