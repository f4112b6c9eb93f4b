// Similarities inside chunks, the mean direction and the outlier score.
#pragma once
#include "rows.h"

enum { SIMILAR_THREADS = 256, TILE = 64 };

// load_units fills rows of shared memory with unit keys, and what is left of padded rows with zeros.
DEVICE void load_units(f32* units, i32 stride, const Job* j, i32 plane, const Chunk& c, i32 first, i32 rows, i32 padded, bool note) {
  i32 team = j->team, per = SIMILAR_THREADS / team, t = tid();
  Lane l = lane_of(j, t & (team - 1));
  for (i32 base = 0; base < padded; base += per) {
    i32 r = base + t / team, i = c.lo + first + r;
    bool on = l.on && r < rows;
    Row x;
    clear(x);
    if (on) load_unrotated(x, j, plane, c.lo, i, l);
    f32 length = normalize(x, team);
    if (on && note && l.l == 0) j->norm[(i64)plane * j->n + i] = length;
    if (l.on && r < padded) {
      f32* u = units + r * stride;
      *(Quad*)(u + l.a) = Quad{x.a[0], x.a[1], x.a[2], x.a[3]};
      *(Quad*)(u + l.a + 4) = Quad{x.a[4], x.a[5], x.a[6], x.a[7]};
      *(Quad*)(u + l.b) = Quad{x.b[0], x.b[1], x.b[2], x.b[3]};
      *(Quad*)(u + l.b + 4) = Quad{x.b[4], x.b[5], x.b[6], x.b[7]};
    }
  }
}

// gram adds the products of M*16 rows with M*16 columns; a thread has every 16th of both.
template <int M> DEVICE void gram(f32 (&acc)[8][8], const f32* rows, const f32* cols, i32 stride, i32 dim) {
  i32 ty = tid() >> 4, tx = tid() & 15;
  for (i32 k = 0; k < dim; k += 4) {
    Quad a[M], b[M];
#pragma unroll
    for (i32 i = 0; i < M; i++) {
      a[i] = *(const Quad*)(rows + (ty + 16 * i) * stride + k);
      b[i] = *(const Quad*)(cols + (tx + 16 * i) * stride + k);
    }
#pragma unroll
    for (i32 i = 0; i < M; i++)
#pragma unroll
      for (i32 c = 0; c < M; c++) {
        f32 s = acc[i][c];
        s = fused(a[i].x, b[c].x, s);
        s = fused(a[i].y, b[c].y, s);
        s = fused(a[i].z, b[c].z, s);
        acc[i][c] = fused(a[i].w, b[c].w, s);
      }
  }
}

DEVICE void clear(f32 (&acc)[8][8]) {
#pragma unroll
  for (i32 i = 0; i < 8; i++)
#pragma unroll
    for (i32 c = 0; c < 8; c++) acc[i][c] = 0;
}

DEVICE i16 quantize(f32 x, f32 scale) {
  f64 y = (f64)(x * scale) + 32768; // positive, so that truncation is floor
  return (i16)((y > 0 ? (i32)(y < 65535 ? y : 65535) : 0) - 32768);
}

// One block is one tile of one group: the similarities of its rows with all tokens of the chunk.
KERNEL LAUNCH_BOUNDS(SIMILAR_THREADS) semproxy_similar(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 g = p.index / j->tiles_len, t = p.index % j->tiles_len;
  Tile tile = j->tiles[t];
  Chunk c = j->chunks[tile.chunk];
  i32 n = c.hi - c.lo, d = j->dim, stride = d + 4, ty = tid() >> 4, tx = tid() & 15;
  bool alone = n <= 2 * TILE; // the chunk is one tile
  i32 padded = alone ? (n <= 64 ? 64 : n <= 96 ? 96 : 128) : TILE;
  f32* rows = (f32*)smem();
  f32* cols = alone ? rows : rows + TILE * stride;
  f32 scale = 1024.0f / (f32)j->group_heads;
  f64 cent[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  i16* sim = j->sim + (i64)g * j->sim_len + c.sim;
  for (i32 col = 0; col < n; col += padded) {
    f32 acc[8][8];
    clear(acc);
    for (i32 plane = g * j->group_heads; plane < (g + 1) * j->group_heads; plane++) {
      sync(); // the rows of the plane before are no longer read
      load_units(rows, stride, j, plane, c, tile.first, tile.rows, padded, col == 0);
      if (!alone) load_units(cols, stride, j, plane, c, col, imin(n - col, TILE), padded, false);
      sync();
      if (padded == 64) gram<4>(acc, rows, cols, stride, d);
      else if (padded == 96) gram<6>(acc, rows, cols, stride, d);
      else gram<8>(acc, rows, cols, stride, d);
      if (col == 0 && (j->flags & NEEDS_MEAN) && tid() < d) {
        f32 s = 0;
        for (i32 r = 0; r < tile.rows; r++) s += rows[r * stride + tid()];
        j->sums[((i64)plane * j->tiles_len + t) * d + tid()] = s;
      }
    }
#pragma unroll
    for (i32 i = 0; i < 8; i++) {
      i32 r = ty + 16 * i;
      if (r >= tile.rows) continue;
#pragma unroll
      for (i32 k = 0; k < 8; k++) {
        i32 x = col + tx + 16 * k;
        if (16 * k >= padded || x >= c.ld) continue;
        sim[(i64)(tile.first + r) * c.ld + x] = x < n ? quantize(acc[i][k], scale) : -32768;
        if (x < n) cent[i] += acc[i][k];
      }
    }
    if (col + padded >= n) // the columns that fill up the row
      for (i32 i = tid(); i < tile.rows * imax(c.ld - col - padded, 0); i += SIMILAR_THREADS) {
        i32 w = c.ld - col - padded;
        sim[(i64)(tile.first + i / w) * c.ld + col + padded + i % w] = -32768;
      }
  }
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    f64 s = team_sum(cent[i], 16);
    i32 r = ty + 16 * i;
    if (tx == 0 && r < tile.rows) j->centrality[(i64)g * j->n + c.lo + tile.first + r] = s / j->group_heads;
  }
}

// One block is one plane: the direction of the mean of its un-rotated unit keys. Sums of chunks are turned by the angle of
// the chunk's first position, once.
KERNEL LAUNCH_BOUNDS(SIMILAR_THREADS) semproxy_mean(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 d = j->dim, e = tid(), h = j->half;
  bool interleaved = j->flags & INTERLEAVED;
  f64* all = (f64*)smem();
  f64 mean = 0;
  if (e < d) {
    i32 other = e, pair = 0;
    f32 sign = 0;
    if (e < 2 * h) {
      other = interleaved ? e ^ 1 : e < h ? e + h : e - h;
      pair = interleaved ? e >> 1 : e < h ? e : e - h;
      sign = (interleaved ? !(e & 1) : e < h) ? 1 : -1;
    }
    for (i32 t = 0; t < j->tiles_len; t++) {
      const f32* sum = j->sums + ((i64)p.index * j->tiles_len + t) * d;
      i32 k = j->tiles[t].chunk;
      f32 x = sum[e];
      if (e < 2 * h) x = x * j->base_cos[(i64)k * h + pair] + sum[other] * (sign * j->base_sin[(i64)k * h + pair]);
      mean += x;
    }
    all[e] = mean;
  }
  sync();
  if (e < d) {
    f64 ss = 0;
    for (i32 i = 0; i < d; i++) ss += all[i] * all[i];
    j->mean[(i64)p.index * d + e] = (f32)(mean * (1 / (root(ss) + 1e-9)));
  }
}

enum { NEIGHBOURS = 3 }; // on each side, that share their attention, so that a token is kept with its surroundings

// looked_at is the attention that token i gets, averaged over its neighbours.
DEVICE f32 looked_at(const Job* j, i32 plane, i32 i) {
  i32 at = j->sinks + i;
  f32 sum = 0;
  for (i32 k = imax(at - NEIGHBOURS, 0); k <= imin(at + NEIGHBOURS, j->tokens - 1); k++)
    sum += j->looks[(i64)plane * j->tokens + k] / (2 * NEIGHBOURS + 1);
  return sum;
}

// One block is one tile of one group: how much its tokens deserve to be exact, summed over the heads; how far their keys lie from
// the mean direction, unless the flags say otherwise.
KERNEL LAUNCH_BOUNDS(SIMILAR_THREADS) semproxy_score(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 g = p.index / j->tiles_len;
  Tile tile = j->tiles[p.index % j->tiles_len];
  Chunk c = j->chunks[tile.chunk];
  i32 team = j->team, per = SIMILAR_THREADS / team, t = tid();
  Lane l = lane_of(j, t & (team - 1));
  for (i32 base = 0; base < tile.rows; base += per) {
    i32 r = base + t / team, i = c.lo + tile.first + r;
    f32 score = 0;
    for (i32 plane = g * j->group_heads; plane < (g + 1) * j->group_heads; plane++) {
      f32 length = r < tile.rows ? j->norm[(i64)plane * j->n + i] : 0;
      if (j->flags & IMPORTANT) {
        if (r < tile.rows) score += j->looks[(i64)plane * j->tokens + j->sinks + i];
        continue;
      }
      if (j->flags & ATTENDED) {
        if (r < tile.rows) score += looked_at(j, plane, i);
        continue;
      }
      if (j->flags & SMALL_KEYS) {
        score -= length;
        continue;
      }
      Row x, mean;
      clear(x);
      clear(mean);
      if (l.on && r < tile.rows) {
        load_unrotated(x, j, plane, c.lo, i, l);
        const f32* m = j->mean + (i64)plane * j->dim;
#pragma unroll
        for (i32 e = 0; e < 8; e++) {
          mean.a[e] = m[l.a + e];
          mean.b[e] = m[l.b + e];
        }
        if (l.turns) { // to the chunk's first position, as the chunk's keys are
          f32 co[8], si[8];
          load_angles(co, j->base_cos, tile.chunk, j->half, l.l);
          load_angles(si, j->base_sin, tile.chunk, j->half, l.l);
          turn(mean, co, si, j->flags & INTERLEAVED, 1);
        }
      }
      score += 1 - team_sum(product(x, mean), team) / (length + 1e-9f);
    }
    if (l.l == 0 && r < tile.rows) j->score[(i64)g * j->n + i] = score;
  }
}
