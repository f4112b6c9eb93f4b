// What the host tells the kernels. layout.go holds the same structures; a test compares them field by field.
#pragma once
#include "portable.h"

// Element types, numbered as compress.DType.
enum { F32 = 0, F16 = 1, BF16 = 2, F8E4M3 = 3, F8E5M2 = 4 };

// compress.Budget
enum { EQUAL = 0, ADAPTIVE = 1, FIXED = 2, LAYERED = 3 };

enum {
  INTERLEAVED = 1,   // rotary pairs are (2i, 2i+1)
  BY_POSITION = 2,   // seeds in order of position
  PLAIN_MEAN = 4,    // a core's key is the plain mean
  REGULAR = 8,       // equal: fill the budget to the core
  ACROSS = 16,       // exact tokens compete over all groups
  WEIGHED = 32,      // similarities are weighed
  DISTINCT = 64,     // by the outlier score as well
  SMALL_KEYS = 128,  // exact tokens are those with the shortest keys
  NEEDS_MEAN = 256,  // the mean direction is used
  NEEDS_SCORE = 512, // the score is used
  ATTENDED = 1024,   // exact tokens are those that the page's queries look at most
  LOOKED = 2048,     // similarities are weighed by looks as well
  IMPORTANT = 4096,  // which come with the page, choose the exact tokens and take the place of the outlier score
  FIT = 8192,        // keys of merged cores and values are fitted
  FOLD = 16384,      // their bias goes into their keys
};

#define LEAST_LOOK 1e-3 // how much less than the mean a token can matter

// A chunk is the range [lo, hi) of tokens after the sinks; its similarities start at sim and have rows of ld.
struct Chunk { i32 lo, hi, sim, ld; };

// A tile is what one block of threads does of a chunk's similarities: rows from first on.
struct Tile { i32 chunk, first, rows, unused; };

// A page. Tokens are counted from the first after the sinks, n of them up to the recent window, unless said otherwise.
struct Job {
  // In.
  const u8 *k, *v;          // [planes, tokens, dim]
  const f32 *kscale, *vscale; // [planes]; null: one
  const i32* positions;     // [tokens]
  const f32 *cos, *sin;     // [rows, half], by distance from the chunk's first position
  const f32* freq;          // [half]
  const f32 *base_cos, *base_sin; // [chunks, half], of the chunks' first positions
  const Chunk* chunks;
  const Tile* tiles;
  const i32* chunk_of;      // [n]
  const f64* age;           // [n], weighed only
  const f64* dear;          // [groups], a factor of the weights of a group's tokens; weighed only
  const u8* keep;           // [n], protected
  const u8* q;              // [planes, queries, dim], those that look; attended and looked only
  const u8* teach;          // [planes, asks, dim] in F32, those that teach; fit and fold only
  // Between kernels.
  f32* norm;                // [planes, n]
  f32* sums;                // [planes, tiles, dim], of unit keys
  f32* mean;                // [planes, dim], direction
  f32* softmax;             // [planes, queries or asks, 2], largest logit and one over the sum
  f32* looks;               // [planes, tokens], attention summed over the queries; looked: times the value's length, or from the host
  f64* mean_look;           // [planes], over the tokens behind the sinks; looked only
  f32* want;                // [planes, asks, dim], what the teachers get from the originals; fit only
  f32* rest;                // [planes, asks, dim], what they get from the cores, then the solution; fit only
  f64* solved;              // [planes, asks, dim]; fit and fold only
  f32* aims;                // [planes, asks, dim], the key that adds one to the logit of each that teaches; fit and fold only
  f32* score;               // [groups, n]
  u8* single;               // [groups, n], never merged
  i16* sim;                 // [groups, sim_len]
  f64* centrality;          // [groups, n]
  u16* cand;                // [groups, n], per chunk the candidates by seed priority
  i32* cand_len;            // [groups, chunks]
  i32* totals;              // [1 + groups, launches, 3], clusters at each node of the bisection
  i32* singles;             // [groups + 1], the last is their sum
  i32* quota;               // [groups]
  i32* seed;                // [groups, n]
  i32* label;               // [groups, n]
  i32* start;               // [groups, n + 1]
  i32* member;              // [groups, n]
  u64* keys;                // [groups, padded], padded the power of two from n on
  // To the host after the first stage.
  i32* threshold;           // [groups]
  i32* cores;               // [groups]
  i32* least;               // [groups], clusters when everything that may merge does
  // Out.
  u8 *out_k, *out_v;        // [planes, width, dim]
  u8 *out_k8, *out_v8;      // the same in 8 bits
  f32 *out_kscale, *out_vscale; // [planes]
  i32* out_counts;          // [planes, width]
  f32* out_positions;       // [planes, width]
  i32* out_assign;          // [planes, tokens]
  f32* out_similarity;      // [planes]
  f32* out_error;           // [planes]
  f64* partial;             // [planes, width, 3], of similarity, squares, lost squares

  i32 layers, heads, tokens, dim;
  i32 n, sinks, recent, groups, group_heads;
  i32 chunks_len, tiles_len, sim_len, padded;
  i32 half, rows;           // rotary pairs that are undone, rows of cos
  i32 dtype, out8, flags, budget;
  i32 slots, exact, lowest, fixed, launches;
  i32 width, team;          // cores per head of the result; lanes per row, a power of two
  i32 queries, qdtype;      // queries that share a KV head
  i32 asks;                 // those that teach it
  i32 pool, granule;        // groups that share a budget; the cores of a head are so many times a whole number
};

// The parameter of every kernel that works on pages: a block finds its page in first, the blocks before each page.
struct Batch {
  const Job* jobs;
  const i32* first; // [count + 1]
  i32 count, arg;
};

struct Place { const Job* job; i32 index; };

DEVICE Place place(const Batch& b) {
  i32 lo = 0, hi = b.count, x = bid();
  while (hi - lo > 1) {
    i32 mid = (lo + hi) >> 1;
    if (b.first[mid] <= x) lo = mid; else hi = mid;
  }
  return Place{b.jobs + lo, x - b.first[lo]};
}
