// Package page is semproxy's wire format: what an engine sends (a page of keys and values) and what it gets back
// (cores with the metadata for proportional attention). Both are one safetensors blob, the format that
// safetensors.torch.load opens, with everything that describes them in the blob's own header.
//
// Three rules hold everywhere:
//
//   - A length is believed only after it was compared with the blob and with Limits, and before anything is allocated.
//   - Nothing is guessed. A blob that is not exactly right is refused with an [Error], whose Code is stable and whose
//     sentence names the tensor or field, what was found and what was wanted.
//   - Decoding copies no tensor. Every []byte (and [Ints]) of a decoded [Page] or [Cores] aliases the blob: the blob
//     must stay unchanged, and must not go back to a pool, for as long as the decoded value is in use. Strings and
//     maps are copied.
//
// Numbers are little-endian and may lie at any alignment. Decoded values are plain data: any number of goroutines may
// read one at the same time, and none may write it. The package starts no goroutine, does no I/O and logs nothing.
//
// The reference of every tensor, key and code is docs/reference/wire-format.md.
package page
