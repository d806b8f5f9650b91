/* XXH64, a checksum of 64 bits: github.com/Cyan4973/xxHash, doc/xxhash_spec.md. It finds accidents; it keeps nobody out.
 *
 * Why here: whatever Python has reads 4 GB/s (crc32) and would be half of what staging costs a leader; four independent
 * lanes of multiplications read as fast as memory gives. Little endian, any alignment. */
#ifndef COLLFS_SUM_H
#define COLLFS_SUM_H
#include "arch.h"

#define P1 0x9E3779B185EBCA87UL
#define P2 0xC2B2AE3D27D4EB4FUL
#define P3 0x165667B19E3779F9UL
#define P4 0x85EBCA77C2B2AE63UL
#define P5 0x27D4EB2F165667C5UL

typedef u64 __attribute__((aligned(1), may_alias)) loose64;
typedef u32 __attribute__((aligned(1), may_alias)) loose32;

static inline u64 turn(u64 x, int by) { return x << by | x >> (64 - by); }
static inline u64 lane(u64 acc, u64 in) { return turn(acc + in * P2, 31) * P1; }
static inline u64 merge(u64 acc, u64 of) { return (acc ^ lane(0, of)) * P1 + P4; }

HIDDEN u64 sum64(const u8 *p, u64 n, u64 seed) {
  const u8 *end = p + n;
  u64 h;
  if (n >= 32) {
    u64 a = seed + P1 + P2, b = seed + P2, c = seed, d = seed - P1;
    do {
      const loose64 *w = (const loose64 *)p;
      a = lane(a, w[0]), b = lane(b, w[1]), c = lane(c, w[2]), d = lane(d, w[3]);
      p += 32;
    } while (end - p >= 32);
    h = turn(a, 1) + turn(b, 7) + turn(c, 12) + turn(d, 18);
    h = merge(merge(merge(merge(h, a), b), c), d);
  } else {
    h = seed + P5;
  }
  h += n;
  for (; end - p >= 8; p += 8) h = turn(h ^ lane(0, *(const loose64 *)p), 27) * P1 + P4;
  if (end - p >= 4) h = turn(h ^ *(const loose32 *)p * P1, 23) * P2 + P3, p += 4;
  for (; p < end; p++) h = turn(h ^ *p * P5, 11) * P1;
  h = (h ^ h >> 33) * P2;
  h = (h ^ h >> 29) * P3;
  return h ^ h >> 32;
}
#endif
