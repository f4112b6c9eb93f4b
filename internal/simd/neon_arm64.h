// Vector instructions that Go's assembler has no name for, operands in Go's order: sources first, destination last. The
// arguments are numbers of V registers; all work on four 32-bit lanes unless said otherwise.

#define FADD(m, n, d) WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d)) // FADD Vd.4S, Vn.4S, Vm.4S
#define FSUB(m, n, d) WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d)) // FSUB Vd.4S, Vn.4S, Vm.4S
#define FADD2D(m, n, d) WORD $(0x4e60d400 | (m)<<16 | (n)<<5 | (d)) // FADD Vd.2D, Vn.2D, Vm.2D
#define FMUL(m, n, d) WORD $(0x6e20dc00 | (m)<<16 | (n)<<5 | (d)) // FMUL Vd.4S, Vn.4S, Vm.4S
#define FMIN(m, n, d) WORD $(0x4ea0f400 | (m)<<16 | (n)<<5 | (d)) // FMIN Vd.4S, Vn.4S, Vm.4S
#define FMAX(m, n, d) WORD $(0x4e20f400 | (m)<<16 | (n)<<5 | (d)) // FMAX Vd.4S, Vn.4S, Vm.4S
#define FADDP(m, n, d) WORD $(0x6e20d400 | (m)<<16 | (n)<<5 | (d)) // FADDP Vd.4S, Vn.4S, Vm.4S: sums of pairs, n's then m's
#define FADDPS(n, d) WORD $(0x7e30d800 | (n)<<5 | (d)) // FADDP Sd, Vn.2S
#define FADDPD(n, d) WORD $(0x7e70d800 | (n)<<5 | (d)) // FADDP Dd, Vn.2D

#define SHLL(n, d) WORD $(0x2e613800 | (n)<<5 | (d)) // SHLL Vd.4S, Vn.4H, #16: bfloat16 to float32
#define SHLL2(n, d) WORD $(0x6e613800 | (n)<<5 | (d)) // SHLL2 Vd.4S, Vn.8H, #16: the upper half of n
#define SHRN(n, d) WORD $(0x0f108400 | (n)<<5 | (d)) // SHRN Vd.4H, Vn.4S, #16
#define SHRN2(n, d) WORD $(0x4f108400 | (n)<<5 | (d)) // SHRN2 Vd.8H, Vn.4S, #16: into the upper half of d
#define FCVTL(n, d) WORD $(0x0e217800 | (n)<<5 | (d)) // FCVTL Vd.4S, Vn.4H: float16 to float32
#define FCVTL2(n, d) WORD $(0x4e217800 | (n)<<5 | (d)) // FCVTL2 Vd.4S, Vn.8H
#define FCVTN(n, d) WORD $(0x0e216800 | (n)<<5 | (d)) // FCVTN Vd.4H, Vn.4S: float32 to float16
#define FCVTN2(n, d) WORD $(0x4e216800 | (n)<<5 | (d)) // FCVTN2 Vd.8H, Vn.4S
#define FCVTLD(n, d) WORD $(0x0e617800 | (n)<<5 | (d)) // FCVTL Vd.2D, Vn.2S: float32 to float64
#define FCVTLD2(n, d) WORD $(0x4e617800 | (n)<<5 | (d)) // FCVTL2 Vd.2D, Vn.4S
#define FCVTMS(n, d) WORD $(0x4e21b800 | (n)<<5 | (d)) // FCVTMS Vd.4S, Vn.4S: floor to int32, saturating
#define FCVTNS(n, d) WORD $(0x4e21a800 | (n)<<5 | (d)) // FCVTNS Vd.4S, Vn.4S: nearest int32
#define FRINTN(n, d) WORD $(0x4e218800 | (n)<<5 | (d)) // FRINTN Vd.4S, Vn.4S: nearest whole float
#define SQXTN(n, d) WORD $(0x0e614800 | (n)<<5 | (d)) // SQXTN Vd.4H, Vn.4S: to int16, saturating
#define SQXTN2(n, d) WORD $(0x4e614800 | (n)<<5 | (d)) // SQXTN2 Vd.8H, Vn.4S
#define XTN(n, d) WORD $(0x0e612800 | (n)<<5 | (d)) // XTN Vd.4H, Vn.4S: the lower halves
#define XTN2(n, d) WORD $(0x4e612800 | (n)<<5 | (d)) // XTN2 Vd.8H, Vn.4S
#define XTNB(n, d) WORD $(0x0e212800 | (n)<<5 | (d)) // XTN Vd.8B, Vn.8H
#define CMHI(m, n, d) WORD $(0x6ea03400 | (m)<<16 | (n)<<5 | (d)) // CMHI Vd.4S, Vn.4S, Vm.4S: all ones where n > m, unsigned

// BROADCAST fills the lanes of v with the 32 bits given.
#define BROADCAST(bits, v) \
	MOVD $bits, R9 \
	VDUP R9, v.S4
