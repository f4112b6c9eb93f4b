// Command gen writes the amd64 kernels. Run it with go generate from the package above; it has a module of its own so that
// the service does not depend on the assembler library.
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!purego")
	gram4AVX512()
	gram2AVX2()
	dot()
	axpy()
	axpy4()
	scale()
	rotate()
	for _, t := range []halfType{bf16, f16} {
		widen(t)
		narrow(t)
		unrotateHalf(t)
		unrotateAddHalf(t)
		unrotateDotHalf(t)
		axpyHalf(t)
	}
	scaleAdd()
	axpy2()
	rotateBy()
	dotsOf()
	maxAbs()
	mul(avx512, 8)
	mul(avx2, 4)
	for _, w := range []width{avx512, avx2} {
		maxRows(w)
	}
	expRows(avx512, 2)
	expRows(avx2, 1)
	rowDots()
	narrowE4M3()
	mirror()
	quantizeRow()
	weighRow()
	rankOf(8)
	rankOf(16)
	reorder(1)
	reorder(2)
	count(1, 4)
	count(2, 3)
	hadamard()
	roundLoss()
	roundCodes("4", 0x41700000) // 15
	roundCodes("8", 0x437f0000) // 255
	levels("4", 0x41700000)
	levels("8", 0x437f0000)
	Generate()
}
