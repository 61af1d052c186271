// What attention in tiles consists of. A warp works for 4 * R rows of one side (queries or keys), in 4 groups of 8
// lanes. Rows of the other side pass through shared memory in tiles of 32, which all warps of a block share. A lane has
// R rows four apart, and of each tile 4 rows eight apart, or 4 of every 32 columns, so that each number that is read
// from shared memory is used several times. R and the columns in steps of 32 are fixed when a kernel is compiled, for
// both lie in registers.

#define KEYS 32
#define COLUMNS 8
#define EACH 4
// Elements between probabilities of neighbouring queries: four groups of lanes write to different banks.
#define WEIGHTS 40

// The group and the column of this thread's lane. They are numbered crosswise: of two lanes side by side both have the
// same column, of two that are two apart the same group. Shared memory serves reads of 16 bytes for more lanes at once
// where such neighbours read the same.
DEVICE int groupOf() { return (threadIdx.x & 1) | (threadIdx.x >> 1 & 2); }
DEVICE int columnOf() { return (threadIdx.x >> 1 & 1) | (threadIdx.x >> 2 & 6); }

DEVICE void load4(const float* p, i64 i, float* x) {
  float4 four = *(const float4*)(p + i);
  x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
}
DEVICE void load4(const bf16* p, i64 i, float* x) {
  u64 words = *(const u64*)(p + i);
#pragma unroll
  for (int e = 0; e < 4; e++) x[e] = __uint_as_float((u32)(words >> (16 * e)) << 16);
}
DEVICE void store4(float* p, i64 i, const float* x) {
  float4 four = {x[0], x[1], x[2], x[3]};
  *(float4*)(p + i) = four;
}
DEVICE void store4(bf16* p, i64 i, const float* x) {
  for (int e = 0; e < 4; e++) store(p, i + e, x[e]);
}

// Rows [first, first + count) of x, `apart` elements apart and each `size` elements long, to shared memory: in fours of
// elements up to `width`, zeros from row `end` and from `size` on. There, `row` elements lie between two rows and
// `four` between two fours. Sixteen threads read the same four rows before they write any; `count` is a multiple of the
// rows that the block's threads read so.
DEVICE void fill(const A* x, int apart, int size, float* to, int count, int first, int end, int width, int row,
                 int four) {
  int thread = threadIdx.x;
  // Unknown to the compiler, which would keep all that follows from it in registers from tile to tile.
  asm volatile("" : "+r"(thread));
  for (int r = thread / 16 * 4; r < count; r += blockDim.x / 4)
    for (int d = thread % 16 * 4; d < width; d += 64) {
      const A* from = x + (i64)(first + r) * apart + d;
      float* place = to + r * row + d / 4 * four;
      if (size % 4 == 0) {
        float fours[4][4] = {};
#pragma unroll
        for (int n = 0; n < 4; n++)
          if (first + r + n < end && d < size) load4(from, (i64)n * apart, fours[n]);
#pragma unroll
        for (int n = 0; n < 4; n++) store4(place, n * row, fours[n]);
      } else
#pragma unroll 1
        for (int n = 0; n < 4; n++)
#pragma unroll 1
          for (int e = 0; e < 4; e++)
            place[n * row + e] = first + r + n < end && d + e < size ? load(from, (i64)n * apart + e) : 0.0f;
    }
}

// Products of a lane's own rows, of `held` that a block has, and its rows of a tile. Both lie in so many fours of
// elements: the first four of each row, then the second; there is room for a row more, so that writing the fours of a
// row has no conflicts between banks.
template <int R>
DEVICE void multiply(const float* own, const float* tile, int fours, int held, float (&score)[R][EACH]) {
#pragma unroll 1
  for (int n = 0; n < fours; n++, own += 4 * (held + 1), tile += 4 * (KEYS + 1)) {
    float other[EACH][4];
#pragma unroll
    for (int e = 0; e < EACH; e++) load4(tile, 4 * COLUMNS * e, other[e]);
#pragma unroll
    for (int r = 0; r < R; r++) {
      float one[4];
      load4(own, 16 * r, one);
#pragma unroll
      for (int x = 0; x < 4; x++)
#pragma unroll
        for (int e = 0; e < EACH; e++) score[r][e] += one[x] * other[e][x];
    }
  }
}

// Adds a tile [32, 32 * STEPS], each row times the weights that the lane's own rows give to it.
template <int R, int STEPS>
DEVICE void addValues(const float* weights, const float* tile, float (&result)[R][STEPS][4]) {
#pragma unroll 1
  for (int t = 0; t < KEYS; t += 4) {
    float weight[R][4];
#pragma unroll
    for (int r = 0; r < R; r++) load4(weights + r * 4 * WEIGHTS, t, weight[r]);
#pragma unroll
    for (int x = 0; x < 4; x++)
#pragma unroll
      for (int s = 0; s < STEPS; s++) {
        float value[4];
        load4(tile + (t + x) * 32 * STEPS, 32 * s, value);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int e = 0; e < 4; e++) result[r][s][e] += weight[r][x] * value[e];
      }
  }
}

// The largest or the sum of what the eight lanes of a group have.
DEVICE float groupMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 16));
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 8));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float groupSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 16);
  x += __shfl_xor_sync(0xffffffffu, x, 8);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// A bit for each of the lane's pairs that attend: an own row sees the others from x to y of its document z. The other
// side's rows are those of a tile from `first` on, in a text that ends at `last`; without `segments` there is one
// document, 0.
template <int R>
DEVICE u32 pairsOf(const int4* bounds, const int* segments, int first, int last) {
  int at = first + columnOf(), documents[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++)
    documents[e] = segments != 0 && at + e * COLUMNS < last ? segments[at + e * COLUMNS] : 0;
  u32 seen = 0;
#pragma unroll
  for (int r = 0; r < R; r++) {
    int4 own = bounds[4 * r];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int other = at + e * COLUMNS;
      if (other >= own.x && other <= own.y && documents[e] == own.z) seen |= 1u << (r * EACH + e);
    }
  }
  // The bits stay together: the compiler would keep each in a register of its own until it is used.
  asm volatile("" : "+r"(seen));
  return seen;
}

// A lane's columns of a row of `size` elements.
template <int STEPS>
DEVICE void put(A* out, i64 row, int size, int column, const float (&x)[STEPS][4]) {
#pragma unroll
  for (int s = 0; s < STEPS; s++) {
    int d = 32 * s + 4 * column;
    if (size % 4 == 0 && d < size)
      store4(out, row + d, x[s]);
    else
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (d + e < size) store(out, row + d + e, x[s][e]);
  }
}
