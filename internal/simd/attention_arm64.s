//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// func axpy4NEON(dst *float32, rows *float32, stride int, w *float32, n int)
TEXT ·axpy4NEON(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD rows+8(FP), R1
	MOVD stride+16(FP), R2
	MOVD w+24(FP), R3
	MOVD n+32(FP), R4
	VLD1 (R3), [V31.S4]
	VDUP V31.S[0], V24.S4
	VDUP V31.S[1], V25.S4
	VDUP V31.S[2], V26.S4
	VDUP V31.S[3], V27.S4
	ADD  R2<<2, R1, R5
	ADD  R2<<2, R5, R6
	ADD  R2<<2, R6, R7

loop:
	VLD1   (R0), [V0.S4, V1.S4]
	VLD1.P 32(R1), [V2.S4, V3.S4]
	VLD1.P 32(R5), [V4.S4, V5.S4]
	VLD1.P 32(R6), [V6.S4, V7.S4]
	VLD1.P 32(R7), [V16.S4, V17.S4]
	VFMLA  V24.S4, V2.S4, V0.S4
	VFMLA  V24.S4, V3.S4, V1.S4
	VFMLA  V25.S4, V4.S4, V0.S4
	VFMLA  V25.S4, V5.S4, V1.S4
	VFMLA  V26.S4, V6.S4, V0.S4
	VFMLA  V26.S4, V7.S4, V1.S4
	VFMLA  V27.S4, V16.S4, V0.S4
	VFMLA  V27.S4, V17.S4, V1.S4
	VST1.P [V0.S4, V1.S4], 32(R0)
	SUBS   $8, R4
	BNE    loop
	RET

// func expSumNEON(x *float32, top float32, n int) float32
// exp(y) is 2^k exp(r) for the whole number k nearest to y/ln 2; what is left over, r, is at most half of ln 2.
TEXT ·expSumNEON(SB), NOSPLIT, $0-28
	MOVD  x+0(FP), R0
	FMOVS top+8(FP), F31
	MOVD  n+16(FP), R1
	VDUP  V31.S[0], V31.S4
	VEOR  V30.B16, V30.B16, V30.B16
	BROADCAST(0xc2ae0000, V29) // -87
	BROADCAST(0x3fb8aa3b, V28) // 1/ln 2
	BROADCAST(0x3f318000, V27) // ln 2, the upper bits
	BROADCAST(0xb95e8083, V26) // and the rest
	BROADCAST(0x3ab60b61, V25) // 1/6!
	BROADCAST(0x3c088889, V24) // 1/5!
	BROADCAST(0x3d2aaaab, V23) // 1/4!
	BROADCAST(0x3e2aaaab, V22) // 1/3!
	BROADCAST(0x3f000000, V21) // 1/2!
	BROADCAST(0x3f800000, V20) // 1

loop:
	VLD1  (R0), [V0.S4]
	FSUB(31, 0, 0)
	FMAX(29, 0, 0)
	FMUL(28, 0, 1)
	FRINTN(1, 1)
	VFMLS V27.S4, V1.S4, V0.S4
	VFMLS V26.S4, V1.S4, V0.S4
	FCVTNS(1, 1)
	VMOV  V24.B16, V2.B16
	VFMLA V25.S4, V0.S4, V2.S4
	VMOV  V23.B16, V3.B16
	VFMLA V2.S4, V0.S4, V3.S4
	VMOV  V22.B16, V2.B16
	VFMLA V3.S4, V0.S4, V2.S4
	VMOV  V21.B16, V3.B16
	VFMLA V2.S4, V0.S4, V3.S4
	VMOV  V20.B16, V2.B16
	VFMLA V3.S4, V0.S4, V2.S4
	VMOV  V20.B16, V3.B16
	VFMLA V2.S4, V0.S4, V3.S4
	VSHL  $23, V1.S4, V1.S4
	VADD  V1.S4, V3.S4, V3.S4 // k more in the exponent
	FADD(3, 30, 30)
	VST1.P [V3.S4], 16(R0)
	SUBS  $4, R1
	BNE   loop
	FADDP(30, 30, 30)
	FADDPS(30, 30)
	FMOVS F30, ret+24(FP)
	RET
