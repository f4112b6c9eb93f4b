// Package gpu compresses pages on NVIDIA GPUs.
//
// A [Compressor] does what compress.Compressor does, for the methods that cluster: pages that wait form a batch, the batch is
// copied to the device, kernels cluster and merge its tokens as the package compress defines it, and the cores are copied back,
// while the next batch is on its way. Whatever the device cannot do, or fails to do, is computed on the CPU instead, so a page
// is always answered. The driver is loaded at run time (package cuda), so the same binary runs where there is none.
//
// The kernels (package kernels) are CUDA C++, committed as PTX. The package fake runs the same source on a CPU behind the
// driver's interface, which is how everything here is tested on machines without a GPU.
package gpu
