// Package bits writes rows of numbers, which are keys or values of one token and head, in 4 or 8 bits an element, and reads
// them back.
//
// A row is rotated by a Hadamard matrix, so that no dimension stands out, and rounded to evenly spaced levels with one scale
// for the row. The inverse is made of whole numbers until its last step, so that every language computes the same bits.
// What keys have in common (a mean before rotation to their positions) is taken off first: a [Carrier]. Methods of this
// kind are QuaRot (arXiv 2404.00456) and TurboQuant (2504.19874); KIVI (2402.02750) is the field's baseline.
//
// The definition for other languages is in docs/reference/wire-format.md.
package bits
