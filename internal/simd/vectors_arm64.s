//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// func dotNEON(a *float32, b *float32, n int) float32
TEXT ·dotNEON(SB), NOSPLIT, $0-28
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD n+16(FP), R2
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16

loop:
	VLD1.P 64(R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R1), [V4.S4, V5.S4, V6.S4, V7.S4]
	VFMLA  V4.S4, V0.S4, V16.S4
	VFMLA  V5.S4, V1.S4, V17.S4
	VFMLA  V6.S4, V2.S4, V18.S4
	VFMLA  V7.S4, V3.S4, V19.S4
	SUBS   $16, R2
	BNE    loop
	FADD(17, 16, 16)
	FADD(19, 18, 18)
	FADD(18, 16, 16)
	FADDP(16, 16, 16)
	FADDPS(16, 16)
	FMOVS  F16, ret+24(FP)
	RET

// func axpyNEON(dst *float32, src *float32, w float32, n int)
TEXT ·axpyNEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	FMOVS w+16(FP), F30
	MOVD  n+24(FP), R2
	VDUP  V30.S[0], V30.S4

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	VLD1   (R0), [V2.S4, V3.S4]
	VFMLA  V30.S4, V0.S4, V2.S4
	VFMLA  V30.S4, V1.S4, V3.S4
	VST1.P [V2.S4, V3.S4], 32(R0)
	SUBS   $8, R2
	BNE    loop
	RET

// func axpy2NEON(dst *float32, sum *float32, src *float32, w float32, v float32, n int)
TEXT ·axpy2NEON(SB), NOSPLIT, $0-40
	MOVD  dst+0(FP), R0
	MOVD  sum+8(FP), R1
	MOVD  src+16(FP), R2
	FMOVS w+24(FP), F30
	FMOVS v+28(FP), F31
	MOVD  n+32(FP), R3
	VDUP  V30.S[0], V30.S4
	VDUP  V31.S[0], V31.S4

loop:
	VLD1.P 32(R2), [V0.S4, V1.S4]
	VLD1   (R0), [V2.S4, V3.S4]
	VLD1   (R1), [V4.S4, V5.S4]
	VFMLA  V30.S4, V0.S4, V2.S4
	VFMLA  V30.S4, V1.S4, V3.S4
	VFMLA  V31.S4, V0.S4, V4.S4
	VFMLA  V31.S4, V1.S4, V5.S4
	VST1.P [V2.S4, V3.S4], 32(R0)
	VST1.P [V4.S4, V5.S4], 32(R1)
	SUBS   $8, R3
	BNE    loop
	RET

// func scaleNEON(x *float32, w float32, n int)
TEXT ·scaleNEON(SB), NOSPLIT, $0-24
	MOVD  x+0(FP), R0
	FMOVS w+8(FP), F30
	MOVD  n+16(FP), R1
	VDUP  V30.S[0], V30.S4

loop:
	VLD1   (R0), [V0.S4, V1.S4]
	FMUL(30, 0, 0)
	FMUL(30, 1, 1)
	VST1.P [V0.S4, V1.S4], 32(R0)
	SUBS   $8, R1
	BNE    loop
	RET

// func scaleAddNEON(x *float32, sum *float32, w float32, n int)
TEXT ·scaleAddNEON(SB), NOSPLIT, $0-32
	MOVD  x+0(FP), R0
	MOVD  sum+8(FP), R1
	FMOVS w+16(FP), F30
	MOVD  n+24(FP), R2
	VDUP  V30.S[0], V30.S4

loop:
	VLD1   (R0), [V0.S4, V1.S4]
	VLD1   (R1), [V2.S4, V3.S4]
	FMUL(30, 0, 0)
	FMUL(30, 1, 1)
	FADD(0, 2, 2)
	FADD(1, 3, 3)
	VST1.P [V0.S4, V1.S4], 32(R0)
	VST1.P [V2.S4, V3.S4], 32(R1)
	SUBS   $8, R2
	BNE    loop
	RET

// func unrotateNEON(lo *float32, hi *float32, cos *float32, sin *float32, n int)
TEXT ·unrotateNEON(SB), NOSPLIT, $0-40
	MOVD lo+0(FP), R0
	MOVD hi+8(FP), R1
	MOVD cos+16(FP), R2
	MOVD sin+24(FP), R3
	MOVD n+32(FP), R4

loop:
	VLD1   (R0), [V0.S4, V1.S4]
	VLD1   (R1), [V2.S4, V3.S4]
	VLD1.P 32(R2), [V4.S4, V5.S4]
	VLD1.P 32(R3), [V6.S4, V7.S4]
	FMUL(4, 0, 16) // lo*cos + hi*sin
	FMUL(5, 1, 17)
	FMUL(4, 2, 18) // hi*cos - lo*sin
	FMUL(5, 3, 19)
	VFMLA  V6.S4, V2.S4, V16.S4
	VFMLA  V7.S4, V3.S4, V17.S4
	VFMLS  V6.S4, V0.S4, V18.S4
	VFMLS  V7.S4, V1.S4, V19.S4
	VST1.P [V16.S4, V17.S4], 32(R0)
	VST1.P [V18.S4, V19.S4], 32(R1)
	SUBS   $8, R4
	BNE    loop
	RET

// func rotateByNEON(lo *float32, hi *float32, cos *float32, sin *float32, freq *float32, delta float32, scale float32, n int)
TEXT ·rotateByNEON(SB), NOSPLIT, $0-56
	MOVD  lo+0(FP), R0
	MOVD  hi+8(FP), R1
	MOVD  cos+16(FP), R2
	MOVD  sin+24(FP), R3
	MOVD  freq+32(FP), R4
	FMOVS delta+40(FP), F30
	FMOVS scale+44(FP), F31
	MOVD  n+48(FP), R5
	VDUP  V30.S[0], V30.S4
	VDUP  V31.S[0], V31.S4
	BROADCAST(0x3f800000, V20) // 1
	BROADCAST(0x3e2aaaab, V21) // 1/3!
	BROADCAST(0x3c088889, V22) // 1/5!
	BROADCAST(0x39500d01, V23) // 1/7!
	BROADCAST(0x3f000000, V24) // 1/2!
	BROADCAST(0x3d2aaaab, V25) // 1/4!
	BROADCAST(0x3ab60b61, V26) // 1/6!
	BROADCAST(0x37d00d01, V27) // 1/8!

loop:
	VLD1.P 16(R4), [V0.S4]
	FMUL(30, 0, 0) // x
	FMUL(0, 0, 1) // y = x*x
	VMOV   V22.B16, V2.B16
	VMOV   V26.B16, V3.B16
	VFMLS  V23.S4, V1.S4, V2.S4
	VFMLS  V27.S4, V1.S4, V3.S4
	VMOV   V21.B16, V4.B16
	VMOV   V25.B16, V5.B16
	VFMLS  V2.S4, V1.S4, V4.S4
	VFMLS  V3.S4, V1.S4, V5.S4
	VMOV   V20.B16, V2.B16
	VMOV   V24.B16, V3.B16
	VFMLS  V4.S4, V1.S4, V2.S4
	VFMLS  V5.S4, V1.S4, V3.S4
	FMUL(0, 2, 4) // sine of x
	VMOV   V20.B16, V5.B16
	VFMLS  V3.S4, V1.S4, V5.S4 // cosine of x
	VLD1.P 16(R2), [V6.S4]
	VLD1.P 16(R3), [V7.S4]
	FMUL(5, 6, 16)
	FMUL(5, 7, 17)
	VFMLS  V4.S4, V7.S4, V16.S4
	VFMLA  V4.S4, V6.S4, V17.S4
	FMUL(31, 16, 16) // u
	FMUL(31, 17, 17) // v
	VLD1   (R0), [V0.S4]
	VLD1   (R1), [V1.S4]
	FMUL(16, 0, 2)
	FMUL(16, 1, 3)
	VFMLS  V17.S4, V1.S4, V2.S4
	VFMLA  V17.S4, V0.S4, V3.S4
	VST1.P [V2.S4], 16(R0)
	VST1.P [V3.S4], 16(R1)
	SUBS   $4, R5
	BNE    loop
	RET
