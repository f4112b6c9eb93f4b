//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// The loops over 16-bit floats are the same for both kinds but for the instructions that widen the lower and the upper
// four of eight.

#define WIDEN(lower, upper) \
	MOVD dst+0(FP), R0 \
	MOVD src+8(FP), R1 \
	MOVD n+16(FP), R2 \
loop: \
	VLD1.P 16(R1), [V0.H8] \
	lower(0, 1) \
	upper(0, 2) \
	VST1.P [V1.S4, V2.S4], 32(R0) \
	SUBS $8, R2 \
	BNE loop \
	RET

#define AXPY(lower, upper) \
	MOVD dst+0(FP), R0 \
	MOVD src+8(FP), R1 \
	FMOVS w+16(FP), F30 \
	MOVD n+24(FP), R2 \
	VDUP V30.S[0], V30.S4 \
loop: \
	VLD1.P 16(R1), [V0.H8] \
	VLD1 (R0), [V4.S4, V5.S4] \
	lower(0, 1) \
	upper(0, 2) \
	VFMLA V30.S4, V1.S4, V4.S4 \
	VFMLA V30.S4, V2.S4, V5.S4 \
	VST1.P [V4.S4, V5.S4], 32(R0) \
	SUBS $8, R2 \
	BNE loop \
	RET

// TURNBACK reads eight elements of the lower half of a row at R1 and eight of the upper at R6, cosines at R2, sines at R3,
// and leaves the pairs, turned back, in V16, V17 (lower) and V18, V19 (upper).
#define TURNBACK(lower, upper) \
	VLD1.P 16(R1), [V24.H8] \
	VLD1.P 16(R6), [V25.H8] \
	VLD1.P 32(R2), [V4.S4, V5.S4] \
	VLD1.P 32(R3), [V6.S4, V7.S4] \
	lower(24, 0) \
	upper(24, 1) \
	lower(25, 2) \
	upper(25, 3) \
	FMUL(4, 0, 16) \
	FMUL(5, 1, 17) \
	FMUL(4, 2, 18) \
	FMUL(5, 3, 19) \
	VFMLA V6.S4, V2.S4, V16.S4 \
	VFMLA V7.S4, V3.S4, V17.S4 \
	VFMLS V6.S4, V0.S4, V18.S4 \
	VFMLS V7.S4, V1.S4, V19.S4

// Sums of rows are taken in the order of the amd64 kernels, so that both round alike.
#define UNROTATE(lower, upper) \
	MOVD dst+0(FP), R0 \
	MOVD src+8(FP), R1 \
	MOVD cos+16(FP), R2 \
	MOVD sin+24(FP), R3 \
	MOVD half+32(FP), R4 \
	ADD R4<<2, R0, R5 \
	ADD R4<<1, R1, R6 \
	VEOR V20.B16, V20.B16, V20.B16 \
	VEOR V21.B16, V21.B16, V21.B16 \
	VEOR V22.B16, V22.B16, V22.B16 \
	VEOR V23.B16, V23.B16, V23.B16 \
loop: \
	TURNBACK(lower, upper) \
	VST1.P [V16.S4, V17.S4], 32(R0) \
	VST1.P [V18.S4, V19.S4], 32(R5) \
	VFMLA V16.S4, V16.S4, V20.S4 \
	VFMLA V17.S4, V17.S4, V21.S4 \
	VFMLA V18.S4, V18.S4, V22.S4 \
	VFMLA V19.S4, V19.S4, V23.S4 \
	SUBS $8, R4 \
	BNE loop \
	FADD(22, 20, 20) \
	FADD(23, 21, 21) \
	FADD(21, 20, 20) \
	FADDP(20, 20, 20) \
	FADDPS(20, 20) \
	FMOVS F20, ret+40(FP) \
	RET

#define UNROTATEDOT(lower, upper) \
	MOVD direction+0(FP), R0 \
	MOVD src+8(FP), R1 \
	MOVD cos+16(FP), R2 \
	MOVD sin+24(FP), R3 \
	MOVD half+32(FP), R4 \
	ADD R4<<2, R0, R5 \
	ADD R4<<1, R1, R6 \
	VEOR V20.B16, V20.B16, V20.B16 \
	VEOR V21.B16, V21.B16, V21.B16 \
	VEOR V22.B16, V22.B16, V22.B16 \
	VEOR V23.B16, V23.B16, V23.B16 \
loop: \
	TURNBACK(lower, upper) \
	VLD1.P 32(R0), [V0.S4, V1.S4] \
	VLD1.P 32(R5), [V2.S4, V3.S4] \
	VFMLA V16.S4, V0.S4, V20.S4 \
	VFMLA V17.S4, V1.S4, V21.S4 \
	VFMLA V18.S4, V2.S4, V22.S4 \
	VFMLA V19.S4, V3.S4, V23.S4 \
	SUBS $8, R4 \
	BNE loop \
	FADD(22, 20, 20) \
	FADD(23, 21, 21) \
	FADD(21, 20, 20) \
	FADDP(20, 20, 20) \
	FADDPS(20, 20) \
	FMOVS F20, ret+40(FP) \
	RET

#define UNROTATEADD(lower, upper) \
	MOVD key+0(FP), R0 \
	MOVD unit+8(FP), R7 \
	MOVD src+16(FP), R1 \
	MOVD cos+24(FP), R2 \
	MOVD sin+32(FP), R3 \
	FMOVS kw+40(FP), F30 \
	FMOVS uw+44(FP), F31 \
	MOVD half+48(FP), R4 \
	VDUP V30.S[0], V30.S4 \
	VDUP V31.S[0], V31.S4 \
	ADD R4<<2, R0, R5 \
	ADD R4<<2, R7, R8 \
	ADD R4<<1, R1, R6 \
loop: \
	TURNBACK(lower, upper) \
	VLD1 (R0), [V0.S4, V1.S4] \
	VLD1 (R5), [V2.S4, V3.S4] \
	VFMLA V30.S4, V16.S4, V0.S4 \
	VFMLA V30.S4, V17.S4, V1.S4 \
	VFMLA V30.S4, V18.S4, V2.S4 \
	VFMLA V30.S4, V19.S4, V3.S4 \
	VST1.P [V0.S4, V1.S4], 32(R0) \
	VST1.P [V2.S4, V3.S4], 32(R5) \
	VLD1 (R7), [V0.S4, V1.S4] \
	VLD1 (R8), [V2.S4, V3.S4] \
	VFMLA V31.S4, V16.S4, V0.S4 \
	VFMLA V31.S4, V17.S4, V1.S4 \
	VFMLA V31.S4, V18.S4, V2.S4 \
	VFMLA V31.S4, V19.S4, V3.S4 \
	VST1.P [V0.S4, V1.S4], 32(R7) \
	VST1.P [V2.S4, V3.S4], 32(R8) \
	SUBS $8, R4 \
	BNE loop \
	RET

// func widenBF16NEON(dst *float32, src *byte, n int)
TEXT ·widenBF16NEON(SB), NOSPLIT, $0-24
	WIDEN(SHLL, SHLL2)

// func widenF16NEON(dst *float32, src *byte, n int)
TEXT ·widenF16NEON(SB), NOSPLIT, $0-24
	WIDEN(FCVTL, FCVTL2)

// func axpyBF16NEON(dst *float32, src *byte, w float32, n int)
TEXT ·axpyBF16NEON(SB), NOSPLIT, $0-32
	AXPY(SHLL, SHLL2)

// func axpyF16NEON(dst *float32, src *byte, w float32, n int)
TEXT ·axpyF16NEON(SB), NOSPLIT, $0-32
	AXPY(FCVTL, FCVTL2)

// func unrotateBF16NEON(dst *float32, src *byte, cos *float32, sin *float32, half int) float32
TEXT ·unrotateBF16NEON(SB), NOSPLIT, $0-44
	UNROTATE(SHLL, SHLL2)

// func unrotateF16NEON(dst *float32, src *byte, cos *float32, sin *float32, half int) float32
TEXT ·unrotateF16NEON(SB), NOSPLIT, $0-44
	UNROTATE(FCVTL, FCVTL2)

// func unrotateAddBF16NEON(key *float32, unit *float32, src *byte, cos *float32, sin *float32, kw float32, uw float32, half int)
TEXT ·unrotateAddBF16NEON(SB), NOSPLIT, $0-56
	UNROTATEADD(SHLL, SHLL2)

// func unrotateDotBF16NEON(direction *float32, src *byte, cos *float32, sin *float32, half int) float32
TEXT ·unrotateDotBF16NEON(SB), NOSPLIT, $0-44
	UNROTATEDOT(SHLL, SHLL2)

// func unrotateAddF16NEON(key *float32, unit *float32, src *byte, cos *float32, sin *float32, kw float32, uw float32, half int)
TEXT ·unrotateAddF16NEON(SB), NOSPLIT, $0-56
	UNROTATEADD(FCVTL, FCVTL2)

// func unrotateDotF16NEON(direction *float32, src *byte, cos *float32, sin *float32, half int) float32
TEXT ·unrotateDotF16NEON(SB), NOSPLIT, $0-44
	UNROTATEDOT(FCVTL, FCVTL2)

// func narrowBF16NEON(dst *byte, src *float32, n int)
// After clamping, the rounding is integer arithmetic: half of the last place that stays, less one unless that place is odd.
TEXT ·narrowBF16NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD $0x7f7f0000, R3 // the largest finite bfloat16
	MOVD $0xff7f0000, R4
	MOVD $1, R5
	MOVD $0x7fff, R6
	VDUP R3, V28.S4
	VDUP R4, V29.S4
	VDUP R5, V30.S4
	VDUP R6, V31.S4

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	FMIN(28, 0, 0)
	FMIN(28, 1, 1)
	FMAX(29, 0, 0)
	FMAX(29, 1, 1)
	VUSHR  $16, V0.S4, V2.S4
	VUSHR  $16, V1.S4, V3.S4
	VAND   V30.B16, V2.B16, V2.B16
	VAND   V30.B16, V3.B16, V3.B16
	VADD   V31.S4, V2.S4, V2.S4
	VADD   V31.S4, V3.S4, V3.S4
	VADD   V0.S4, V2.S4, V2.S4
	VADD   V1.S4, V3.S4, V3.S4
	SHRN(2, 4)
	SHRN2(3, 4)
	VST1.P [V4.H8], 16(R0)
	SUBS   $8, R2
	BNE    loop
	RET

// func narrowF16NEON(dst *byte, src *float32, n int)
TEXT ·narrowF16NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD $0x477fe000, R3 // 65504
	MOVD $0xc77fe000, R4
	VDUP R3, V28.S4
	VDUP R4, V29.S4

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	FMIN(28, 0, 0)
	FMIN(28, 1, 1)
	FMAX(29, 0, 0)
	FMAX(29, 1, 1)
	FCVTN(0, 2)
	FCVTN2(1, 2)
	VST1.P [V2.H8], 16(R0)
	SUBS   $8, R2
	BNE    loop
	RET
