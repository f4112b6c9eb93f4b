// Reading and writing rows of K and V. A row is handled by a team of lanes; a lane has 16 elements, loaded as two runs of 8.
#pragma once
#include "job.h"

DEVICE f32 widen_e4m3(u8 c) {
  if ((c & 0x7f) == 0x7f) return float_of(0x7fc00000);
  return widen_f16((u16)((c & 0x80) << 8 | (c & 0x7f) << 7)) * 256.0f;
}

DEVICE void widen_pair(f32* x, u32 w, i32 dtype) {
  if (dtype == BF16) {
    x[0] = float_of((i32)(w << 16));
    x[1] = float_of((i32)(w & 0xffff0000u));
  } else {
    x[0] = widen_f16((u16)w);
    x[1] = widen_f16((u16)(w >> 16));
  }
}

// load8 widens the 8 elements at p, which is aligned to them.
DEVICE void load8(f32* x, const u8* p, i32 dtype, f32 scale) {
  if (dtype == F16 || dtype == BF16) {
    Four w = *(const Four*)p;
    widen_pair(x, w.x, dtype);
    widen_pair(x + 2, w.y, dtype);
    widen_pair(x + 4, w.z, dtype);
    widen_pair(x + 6, w.w, dtype);
  } else if (dtype == F32) {
    Quad a = ((const Quad*)p)[0], b = ((const Quad*)p)[1];
    x[0] = a.x; x[1] = a.y; x[2] = a.z; x[3] = a.w;
    x[4] = b.x; x[5] = b.y; x[6] = b.z; x[7] = b.w;
  } else {
    Two w = *(const Two*)p;
#pragma unroll
    for (i32 i = 0; i < 8; i++) {
      u8 c = (u8)((i < 4 ? w.x : w.y) >> (8 * (i & 3)));
      x[i] = (dtype == F8E4M3 ? widen_e4m3(c) : widen_f16((u16)(c << 8))) * scale;
    }
  }
}

DEVICE u32 narrow_f16(f32 x) {
  u32 b = (u32)bits_of(x), sign = b >> 16 & 0x8000;
  b &= 0x7fffffff;
  if (b > 0x7f800000) return sign | 0x7e00;
  if (b >= 0x477fe000) return sign | 0x7bff; // saturates
  if (b < 0x38800000) return sign | ((u32)bits_of(float_of((i32)b) + 0.5f) - 0x3f000000);
  return sign | (b - 0x38000000 + 0xfff + (b >> 13 & 1)) >> 13;
}

DEVICE u32 narrow_bf16(f32 x) {
  u32 b = (u32)bits_of(x);
  if ((b & 0x7fffffff) > 0x7f7f0000 && x == x) return (b >> 16 & 0x8000) | 0x7f7f;
  return ((b + 0x7fff + (b >> 16 & 1)) >> 16) & 0xffff;
}

// narrow_8 rounds to nearest even and saturates, as internal/simd's FP8.Encode.
DEVICE u32 narrow_8(f32 x, i32 dtype) {
  i32 mantissa = dtype == F8E4M3 ? 3 : 2, bias = dtype == F8E4M3 ? 7 : 15;
  u32 most = dtype == F8E4M3 ? 0x7e : 0x7b;
  u32 b = (u32)bits_of(x), sign = b >> 24 & 0x80;
  b &= 0x7fffffff;
  if (b > 0x7f800000) return sign | 0x7f;
  i32 shift = 23 - mantissa;
  if (b < (u32)(128 - bias) << 23) {
    u32 magic = (u32)(128 - bias + shift) << 23;
    return sign | (((u32)bits_of(float_of((i32)b) + float_of((i32)magic)) - magic) & 0xff);
  }
  u32 r = (b - ((u32)(127 - bias) << 23) + (1u << (shift - 1)) - 1 + (b >> shift & 1)) >> shift;
  return sign | (r < most ? r : most);
}

// store8 rounds 8 elements after dividing them by scale (8 bits only).
DEVICE void store8(u8* p, const f32* x, i32 dtype, f32 scale) {
  if (dtype == F16 || dtype == BF16) {
    u32 w[4];
#pragma unroll
    for (i32 i = 0; i < 4; i++)
      w[i] = dtype == F16 ? narrow_f16(x[2 * i]) | narrow_f16(x[2 * i + 1]) << 16
                          : narrow_bf16(x[2 * i]) | narrow_bf16(x[2 * i + 1]) << 16;
    *(Four*)p = Four{w[0], w[1], w[2], w[3]};
  } else if (dtype == F32) {
    ((Quad*)p)[0] = Quad{x[0], x[1], x[2], x[3]};
    ((Quad*)p)[1] = Quad{x[4], x[5], x[6], x[7]};
  } else {
    u32 w[2] = {0, 0};
#pragma unroll
    for (i32 i = 0; i < 8; i++) {
      f32 y = dtype == F8E4M3 ? x[i] * (1 / scale) : x[i] / scale;
      w[i >> 2] |= narrow_8(y, dtype) << (8 * (i & 3));
    }
    *(Two*)p = Two{w[0], w[1]};
  }
}

DEVICE i32 element_size(i32 dtype) { return dtype == F32 ? 4 : dtype <= BF16 ? 2 : 1; }
DEVICE f32 scale_of(const f32* s, i32 plane) { return s ? s[plane] : 1.0f; }

// Which elements a lane of a team has: 8 from a on, 8 from b on. Rotary pairs of the half layout are (a+i, b+i).
struct Lane {
  i32 l, a, b;
  bool on, turns;
};

DEVICE Lane lane_of(const Job* j, i32 l) {
  Lane x;
  x.l = l;
  x.on = 16 * l < j->dim;
  x.turns = 8 * l < j->half;
  x.a = 16 * l;
  x.b = 16 * l + 8;
  if (x.turns && !(j->flags & INTERLEAVED)) {
    x.a = 8 * l;
    x.b = 8 * l + j->half;
  }
  return x;
}

struct Row { f32 a[8], b[8]; };

DEVICE void load_row(Row& r, const Job* j, const u8* x, const f32* scales, i32 plane, i32 token, const Lane& l) {
  i32 size = element_size(j->dtype);
  const u8* p = x + ((i64)plane * j->tokens + token) * j->dim * size;
  f32 s = scale_of(scales, plane);
  load8(r.a, p + l.a * size, j->dtype, s);
  load8(r.b, p + l.b * size, j->dtype, s);
}

// turn rotates a lane's pairs by the angles whose 8 cosines and sines are given; sign is -1 to turn back.
DEVICE void turn(Row& r, const f32* c, const f32* s, bool interleaved, f32 sign) {
  if (interleaved) {
#pragma unroll
    for (i32 i = 0; i < 4; i++) {
      f32 u = r.a[2 * i], v = r.a[2 * i + 1], si = sign * s[i];
      r.a[2 * i] = u * c[i] - v * si;
      r.a[2 * i + 1] = v * c[i] + u * si;
      u = r.b[2 * i]; v = r.b[2 * i + 1]; si = sign * s[4 + i];
      r.b[2 * i] = u * c[4 + i] - v * si;
      r.b[2 * i + 1] = v * c[4 + i] + u * si;
    }
    return;
  }
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    f32 u = r.a[i], v = r.b[i], si = sign * s[i];
    r.a[i] = u * c[i] - v * si;
    r.b[i] = v * c[i] + u * si;
  }
}

DEVICE void load_angles(f32* x, const f32* table, i32 row, i32 half, i32 l) {
  const Quad* p = (const Quad*)(table + (i64)row * half + 8 * l);
  Quad a = p[0], b = p[1];
  x[0] = a.x; x[1] = a.y; x[2] = a.z; x[3] = a.w;
  x[4] = b.x; x[5] = b.y; x[6] = b.z; x[7] = b.w;
}

// load_unrotated reads a key and turns it back to its chunk's first position.
DEVICE void load_unrotated(Row& r, const Job* j, i32 plane, i32 lo, i32 i, const Lane& l) {
  load_row(r, j, j->k, j->kscale, plane, j->sinks + i, l);
  if (l.turns) {
    f32 c[8], s[8];
    i32 row = j->positions[j->sinks + i] - j->positions[j->sinks + lo];
    load_angles(c, j->cos, row, j->half, l.l);
    load_angles(s, j->sin, row, j->half, l.l);
    turn(r, c, s, j->flags & INTERLEAVED, -1);
  }
}

DEVICE f32 squares(const Row& r) {
  f32 x = 0, y = 0;
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    x = fused(r.a[i], r.a[i], x);
    y = fused(r.b[i], r.b[i], y);
  }
  return x + y;
}

DEVICE f32 product(const Row& r, const Row& o) {
  f32 x = 0, y = 0;
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    x = fused(r.a[i], o.a[i], x);
    y = fused(r.b[i], o.b[i], y);
  }
  return x + y;
}

DEVICE f64 wide_squares(const Row& r) {
  f64 x = 0;
#pragma unroll
  for (i32 i = 0; i < 8; i++) x += (f64)r.a[i] * r.a[i] + (f64)r.b[i] * r.b[i];
  return x;
}

DEVICE void clear(Row& r) {
#pragma unroll
  for (i32 i = 0; i < 8; i++) r.a[i] = r.b[i] = 0;
}

DEVICE void multiply(Row& r, f32 w) {
#pragma unroll
  for (i32 i = 0; i < 8; i++) { r.a[i] *= w; r.b[i] *= w; }
}

DEVICE void add(Row& sum, const Row& r, f32 w) {
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    sum.a[i] = fused(w, r.a[i], sum.a[i]);
    sum.b[i] = fused(w, r.b[i], sum.b[i]);
  }
}

// normalize divides a row by its length plus 1e-9 and returns the length. Lanes that are not on hold zeros; all lanes of the
// warp call it.
DEVICE f32 normalize(Row& r, i32 team) {
  f32 ss = team_sum(squares(r), team);
  bool fits = ss > 1e-30f && ss < 1e37f;
  f64 sum = ss;
  if (ballot(!fits)) { // out of float32's range, or nothing
    f64 wide = team_sum(wide_squares(r), team);
    if (!fits) sum = wide;
  }
  f64 length = root(sum), inv = 1 / (length + 1e-9);
  if (fits) {
    multiply(r, (f32)inv);
    return (f32)length;
  }
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    r.a[i] = (f32)(r.a[i] * inv);
    r.b[i] = (f32)(r.b[i] * inv);
  }
  return (f32)(length < 3.4028234663852886e38 ? length : 3.4028234663852886e38);
}
