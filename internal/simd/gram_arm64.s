//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// ZERO4 clears four sums.
#define ZERO4(a, b, c, d) \
	VEOR a.B16, a.B16, a.B16 \
	VEOR b.B16, b.B16, b.B16 \
	VEOR c.B16, c.B16, c.B16 \
	VEOR d.B16, d.B16, d.B16

// MULADD4 adds the products of x and the four elements of the rows of b.
#define MULADD4(x, a, b, c, d) \
	VFMLA V20.S4, x.S4, a.S4 \
	VFMLA V21.S4, x.S4, b.S4 \
	VFMLA V22.S4, x.S4, c.S4 \
	VFMLA V23.S4, x.S4, d.S4

// ADDROW adds up each of the four vectors that begin at register r and adds the sums to the four floats at p.
#define ADDROW(r, p) \
	FADDP(r+1, r, r) \
	FADDP(r+3, r+2, r+2) \
	FADDP(r+2, r, r) \
	VLD1 (p), [V16.S4] \
	FADD(r, 16, 16) \
	VST1 [V16.S4], (p)

// func gram4NEON(s *float32, ld int, a *float32, b *float32, blocks int, stride int)
// Sixteen sums of four lanes stay in V0 to V15 while four floats of four rows of a and of b pass through V16 to V23.
TEXT ·gram4NEON(SB), NOSPLIT, $0-48
	MOVD s+0(FP), R0
	MOVD ld+8(FP), R1
	MOVD a+16(FP), R2
	MOVD b+24(FP), R3
	MOVD blocks+32(FP), R4
	MOVD stride+40(FP), R5
	LSL  $2, R1
	LSL  $2, R5

block:
	MOVD R2, R9
	ADD  R5, R9, R10
	ADD  R5, R10, R11
	ADD  R5, R11, R12
	ADD  R5, R3, R13
	ADD  R5, R13, R14
	ADD  R5, R14, R15
	MOVD R5, R6
	ZERO4(V0, V1, V2, V3)
	ZERO4(V4, V5, V6, V7)
	ZERO4(V8, V9, V10, V11)
	ZERO4(V12, V13, V14, V15)

floats:
	VLD1.P 16(R9), [V16.S4]
	VLD1.P 16(R3), [V20.S4]
	VLD1.P 16(R13), [V21.S4]
	VLD1.P 16(R14), [V22.S4]
	VLD1.P 16(R15), [V23.S4]
	VLD1.P 16(R10), [V17.S4]
	VLD1.P 16(R11), [V18.S4]
	VLD1.P 16(R12), [V19.S4]
	MULADD4(V16, V0, V1, V2, V3)
	MULADD4(V17, V4, V5, V6, V7)
	MULADD4(V18, V8, V9, V10, V11)
	MULADD4(V19, V12, V13, V14, V15)
	SUBS   $16, R6
	BNE    floats

	ADD R1, R0, R9
	ADD R1, R9, R10
	ADD R1, R10, R11
	ADDROW(0, R0)
	ADDROW(4, R9)
	ADDROW(8, R10)
	ADDROW(12, R11)
	ADD  $16, R0
	MOVD R15, R3 // behind the last of the four rows
	SUBS $1, R4
	BNE  block
	RET

// func mirror4NEON(dst *float32, src *float32, ld int, blocks int)
TEXT ·mirror4NEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD ld+16(FP), R2
	MOVD blocks+24(FP), R3
	LSL  $2, R2
	ADD  R2, R0, R4
	ADD  R2, R4, R5
	ADD  R2, R5, R6

transpose:
	VLD1  (R1), [V0.S4]
	ADD   R2, R1
	VLD1  (R1), [V1.S4]
	ADD   R2, R1
	VLD1  (R1), [V2.S4]
	ADD   R2, R1
	VLD1  (R1), [V3.S4]
	ADD   R2, R1
	VTRN1 V1.S4, V0.S4, V4.S4
	VTRN2 V1.S4, V0.S4, V5.S4
	VTRN1 V3.S4, V2.S4, V6.S4
	VTRN2 V3.S4, V2.S4, V7.S4
	VTRN1 V6.D2, V4.D2, V0.D2
	VTRN1 V7.D2, V5.D2, V1.D2
	VTRN2 V6.D2, V4.D2, V2.D2
	VTRN2 V7.D2, V5.D2, V3.D2
	VST1.P [V0.S4], 16(R0)
	VST1.P [V1.S4], 16(R4)
	VST1.P [V2.S4], 16(R5)
	VST1.P [V3.S4], 16(R6)
	SUBS  $1, R3
	BNE   transpose
	RET

// func quantizeNEON(dst *int16, src *float32, scale float32, n int) float64
TEXT ·quantizeNEON(SB), NOSPLIT, $0-40
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	FMOVS scale+16(FP), F30
	MOVD  n+24(FP), R2
	VDUP  V30.S[0], V30.S4
	VEOR  V28.B16, V28.B16, V28.B16
	VEOR  V29.B16, V29.B16, V29.B16

quantize:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	FCVTLD(0, 4)
	FCVTLD2(0, 5)
	FCVTLD(1, 6)
	FCVTLD2(1, 7)
	FADD2D(4, 28, 28)
	FADD2D(5, 29, 29)
	FADD2D(6, 28, 28)
	FADD2D(7, 29, 29)
	FMUL(30, 0, 0)
	FMUL(30, 1, 1)
	FCVTMS(0, 0)
	FCVTMS(1, 1)
	SQXTN(0, 2)
	SQXTN2(1, 2)
	VST1.P [V2.H8], 16(R0)
	SUBS   $8, R2
	BNE    quantize
	FADD2D(29, 28, 28)
	FADDPD(28, 28)
	FMOVD  F28, ret+32(FP)
	RET
