// Command image makes semproxy's container images without a container engine: it builds the program, lays it over a base of a few
// files, and writes an OCI layout, an SPDX document and a provenance per image, and, where it is asked to, a registry. The same sources give the
// same digests.
//
// There are two images. The plain one is a static program on next to nothing. The one with "-gpu" behind its version can use
// NVIDIA GPUs: it loads the driver at run time, for which it needs the C library and its loader, from Debian's package libc6.
package main
