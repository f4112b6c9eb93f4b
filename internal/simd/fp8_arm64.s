//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// func maxAbsNEON(x *float32, n int) float32
// Without the sign, floats are ordered as their bits are, NaN last.
TEXT ·maxAbsNEON(SB), NOSPLIT, $0-20
	MOVD x+0(FP), R0
	MOVD n+8(FP), R1
	BROADCAST(0x7fffffff, V31)
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16

loop:
	VLD1.P 32(R0), [V0.S4, V1.S4]
	VAND   V31.B16, V0.B16, V0.B16
	VAND   V31.B16, V1.B16, V1.B16
	VUMAX  V0.S4, V4.S4, V4.S4
	VUMAX  V1.S4, V5.S4, V5.S4
	SUBS   $8, R1
	BNE    loop
	VUMAX  V4.S4, V5.S4, V4.S4
	VEXT   $8, V4.B16, V4.B16, V5.B16
	VUMAX  V4.S4, V5.S4, V4.S4
	VEXT   $4, V4.B16, V4.B16, V5.B16
	VUMAX  V4.S4, V5.S4, V4.S4
	FMOVS  F4, ret+16(FP)
	RET

// E4M3OF rounds four floats x times V30 to 8 bits. Numbers that are normal in E4M3 are rounded in their bits, smaller ones
// by adding the power of two whose last bit is worth the smallest of them. abs, t and u are scratch.
#define E4M3OF(x, X, ABS, abs, T, t, U) \
	FMUL(30, x, x) \
	VAND V20.B16, X.B16, ABS.B16 \
	CMHI(26, abs, t) \
	VUSHR $31, T.S4, U.S4 \
	VUMIN V21.S4, ABS.S4, ABS.S4 \
	VUSHR $24, X.S4, X.S4 \
	VAND V27.B16, X.B16, X.B16 \
	VORR U.B16, X.B16, X.B16 \
	VUSHR $20, ABS.S4, U.S4 \
	VAND V28.B16, U.B16, U.B16 \
	VADD V24.S4, U.S4, U.S4 \
	VADD ABS.S4, U.S4, U.S4 \
	VUSHR $20, U.S4, U.S4 \
	FADD(22, abs, t) \
	VSUB V22.S4, T.S4, T.S4 \
	CMHI(abs, 23, abs) \
	VBSL U.B16, T.B16, ABS.B16 \
	VORR ABS.B16, X.B16, X.B16

// func narrowE4M3NEON(dst *byte, src *float32, w float32, n int)
TEXT ·narrowE4M3NEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	FMOVS w+16(FP), F30
	MOVD  n+24(FP), R2
	VDUP  V30.S[0], V30.S4
	BROADCAST(0x7fffffff, V20)
	BROADCAST(0x43e00000, V21) // 448, the largest
	BROADCAST(0x46800000, V22) // 2^14
	BROADCAST(0x3c800000, V23) // 2^-6, the least that is normal
	BROADCAST(0xc407ffff, V24) // less 120 from the exponent; half of the last place that stays, less one
	BROADCAST(0x7f800000, V26) // infinity, beyond which lie the NaN
	BROADCAST(0x80, V27)
	BROADCAST(1, V28)

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	E4M3OF(0, V0, V2, 2, V4, 4, V6)
	E4M3OF(1, V1, V3, 3, V5, 5, V7)
	XTN(0, 2)
	XTN2(1, 2)
	XTNB(2, 2)
	VST1.P [V2.B8], 8(R0)
	SUBS   $8, R2
	BNE    loop
	RET
