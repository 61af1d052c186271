// Attention in float for every option (see attention.cu) and many queries: those of a sequence, or new tokens behind a
// cache. A warp works for 4 * R queries, in 4 groups of 8 lanes. Keys pass through shared memory in tiles of 32, which
// all warps of a block share, then their values. A lane has R queries, and of each tile 4 keys, then 4 of every 32
// columns of the values, so that each number that is read from shared memory is used several times. R and the columns
// in steps of 32 are fixed when a kernel is compiled, for both lie in registers.

#define KEYS 32
#define COLUMNS 8
#define EACH 4
// Elements between probabilities of neighbouring queries: four groups of lanes write to different banks.
#define WEIGHTS 40

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
  for (int r = threadIdx.x / 16 * 4; r < count; r += blockDim.x / 4)
    for (int d = threadIdx.x % 16 * 4; d < width; d += 64) {
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

// Products of a lane's queries, four rows apart, and its keys, eight apart. Both lie in so many fours of elements: the
// first four of each row, then the second; a row more than there are lies between two fours of a row, so that writing
// them has no conflicts between banks.
template <int R>
DEVICE void multiply(const float* queries, const float* keys, int fours, int held, float (&score)[R][EACH]) {
#pragma unroll 1
  for (int n = 0; n < fours; n++, queries += 4 * (held + 1), keys += 4 * (KEYS + 1)) {
    float key[EACH][4];
#pragma unroll
    for (int e = 0; e < EACH; e++) load4(keys, 4 * COLUMNS * e, key[e]);
#pragma unroll
    for (int r = 0; r < R; r++) {
      float query[4];
      load4(queries, 16 * r, query);
#pragma unroll
      for (int x = 0; x < 4; x++)
#pragma unroll
        for (int e = 0; e < EACH; e++) score[r][e] += query[x] * key[e][x];
    }
  }
}

// Adds a tile of values [32, 32 * STEPS], weighted by what each of the lane's queries gives to each key.
template <int R, int STEPS>
DEVICE void addValues(const float* weights, const float* values, float (&result)[R][STEPS][4]) {
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
        load4(values + (t + x) * 32 * STEPS, 32 * s, value);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int e = 0; e < 4; e++) result[r][s][e] += weight[r][x] * value[e];
      }
  }
}

// The largest or the sum of what eight neighbouring lanes have.
DEVICE float columnsMax(float x) {
  for (int step = COLUMNS / 2; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
DEVICE float columnsSum(float x) {
  for (int step = COLUMNS / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// B rows of T queries each. Query i of row b stands at lengths[b] + i - start behind the row's past keys [B, kvHeads,
// C, D], and sees those, then the T keys beside the queries from its start up to its own, of its own document. Without
// `lengths` nothing is past, without `starts` all begin at 0, without `segments` a row is one document. lse [N, heads]
// is the log of each softmax's denominator; null: it is not asked for. Grid: T in groups of as many queries as the
// warps of a block have, heads, B. Shared: these queries [D / 4, queries + 1, 4], a tile of keys [D / 4, 33, 4] or of
// values [32, 32 * STEPS], weights [queries, 40], bounds [queries, 4].
template <int R, int STEPS>
DEVICE void attend(const A* q, const A* k, const A* v, const A* pastK, const A* pastV, const int* lengths,
                   const float* sinks, const int* starts, const int* segments, A* out, float* lse, int T, int heads,
                   int kvHeads, int D, int V, int C, float scale, int window, float cap) {
  extern __shared__ float4 shared4[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, held = (blockDim.x >> 5) * 4 * R;
  int group = lane / COLUMNS, column = lane % COLUMNS, fours = (D + 3) / 4;
  // The lane's first query among the block's; the others stand four apart.
  int place = warp * 4 * R + group;
  float* queries = (float*)shared4;
  float* tile = queries + 4 * fours * (held + 1);
  float* weights = tile + max(4 * fours * (KEYS + 1), KEYS * 32 * STEPS);
  int4* bounds = (int4*)(weights + held * WEIGHTS);
  weights += place * WEIGHTS;
  int head = blockIdx.y, b = blockIdx.z, kvHead = head * kvHeads / heads, past = lengths == 0 ? 0 : lengths[b];
  // The last queries see the most keys: they begin first.
  int block = (gridDim.x - 1 - blockIdx.x) * held, end = min(T, block + held);
  i64 start = (i64)b * T, cache = ((i64)b * kvHeads + kvHead) * C;
  fill(q + (start * heads + head) * D, heads * D, D, queries, held, block, end, 4 * fours, 4, 4 * (held + 1));
  // Each lane sums its own keys; a sink is the first lane's.
  float top[R], sum[R], result[R][STEPS][4] = {};
#pragma unroll
  for (int r = 0; r < R; r++) {
    top[r] = sinks == 0 ? minusInfinity() : sinks[head];
    sum[r] = sinks == 0 || column > 0 ? 0.0f : 1.0f;
  }
  int earliest = block;
  if (starts == 0)
    earliest = 0;
  else
    for (int i = block; i < end; i++) earliest = min(earliest, starts[start + i]);
#pragma unroll 1
  for (int part = past > 0 ? 0 : 1; part < 2; part++) {
    bool isNew = part == 1;
    int last = isNew ? end : past;
    // The block's first query stands here among the part's keys, or, with starts, behind the past's end.
    int position = isNew ? block : starts == 0 ? past + block : past;
    int first = max(isNew ? earliest : 0, window > 0 ? position - window + 1 : 0);
    // Each query sees the keys from x to y of its document z.
    __syncthreads();
    for (int n = threadIdx.x; n < held; n += blockDim.x) {
      int i = block + n, begin = starts != 0 && i < end ? starts[start + i] : 0;
      int stands = isNew ? i : past + i - begin;
      bounds[n].x = max(isNew ? begin : 0, window > 0 ? stands - window + 1 : 0);
      bounds[n].y = i < end ? min(stands, last - 1) : -1;
      bounds[n].z = segments != 0 && i < end ? segments[start + i] : 0;
    }
    __syncthreads();
    i64 from = isNew ? start * kvHeads + kvHead : cache;
    const A *keys = (isNew ? k : pastK) + from * D, *values = (isNew ? v : pastV) + from * V;
    int apart = isNew ? kvHeads : 1;
#pragma unroll 1
    for (int j0 = first; j0 < last; j0 += KEYS) {
      // A bit for each of the lane's pairs.
      u32 seen = 0;
      int documents[EACH];
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        int j = j0 + column + e * COLUMNS;
        documents[e] = segments != 0 && j < last ? segments[start + j] : 0;
      }
#pragma unroll
      for (int r = 0; r < R; r++) {
        int4 own = bounds[place + 4 * r];
#pragma unroll
        for (int e = 0; e < EACH; e++) {
          int j = j0 + column + e * COLUMNS;
          if (j >= own.x && j <= own.y && documents[e] == own.z) seen |= 1u << (r * EACH + e);
        }
      }
      // The bits stay together: the compiler would keep each in a register of its own until it is used.
      asm volatile("" : "+r"(seen));
      // All warps are done with the tile before.
      if (!__syncthreads_or(seen != 0)) continue;
      bool isBusy = __any_sync(0xffffffffu, seen != 0);
      fill(keys, apart * D, D, tile, KEYS, j0, last, 4 * fours, 4, 4 * (KEYS + 1));
      __syncthreads();
      if (isBusy) {
        float score[R][EACH] = {};
        multiply<R>(queries + 4 * place, tile + 4 * column, fours, held, score);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int e = 0; e < EACH; e++) score[r][e] *= scale;
        if (cap > 0.0f)
#pragma unroll
          for (int r = 0; r < R; r++)
#pragma unroll
            for (int e = 0; e < EACH; e++) score[r][e] = cap * tanhf(score[r][e] / cap);
#pragma unroll
        for (int r = 0; r < R; r++) {
          float most = minusInfinity();
#pragma unroll
          for (int e = 0; e < EACH; e++) {
            if (!(seen >> (r * EACH + e) & 1)) score[r][e] = minusInfinity();
            most = fmaxf(most, score[r][e]);
          }
          float next = fmaxf(top[r], columnsMax(most));
          // A query that has seen no key yet: all its weights are 0.
          float base = next == minusInfinity() ? 0.0f : next, shrink = expf(top[r] - base);
          top[r] = next;
          sum[r] *= shrink;
#pragma unroll
          for (int e = 0; e < EACH; e++) {
            float weight = expf(score[r][e] - base);
            sum[r] += weight;
            weights[r * 4 * WEIGHTS + column + e * COLUMNS] = weight;
          }
#pragma unroll
          for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int e = 0; e < 4; e++) result[r][s][e] *= shrink;
        }
      }
      __syncthreads();
      fill(values, apart * V, V, tile, KEYS, j0, last, 32 * STEPS, 32 * STEPS, 4);
      __syncthreads();
      if (isBusy) addValues<R, STEPS>(weights, tile + 4 * column, result);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    float total = columnsSum(sum[r]);
    int i = block + place + 4 * r;
    if (i >= end) continue;
    i64 row = (start + i) * heads + head;
    if (column == 0 && lse != 0) lse[row] = top[r] + logf(total);
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
      int d = 32 * s + 4 * column;
#pragma unroll
      for (int e = 0; e < 4; e++) result[r][s][e] /= total;
      if (V % 4 == 0 && d < V)
        store4(out, row * V + d, result[r][s]);
      else
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (d + e < V) store(out, row * V + d + e, result[r][s][e]);
    }
  }
}

// Arguments of the kernels, and their names.
#define ATTEND                                                                                                   \
  const A *q, const A *k, const A *v, const A *pastK, const A *pastV, const int *lengths, const float *sinks,    \
      const int *starts, const int *segments, A *out, float *lse, int T, int heads, int kvHeads, int D, int V,   \
      int C, float scale, int window, float cap
#define ATTENDED                                                                                                    \
  q, k, v, pastK, pastV, lengths, sinks, starts, segments, out, lse, T, heads, kvHeads, D, V, C, scale, window, cap

// By the most elements of a value head.
KERNEL __launch_bounds__(128, 3) attention64(ATTEND) { attend<8, 2>(ATTENDED); }
KERNEL __launch_bounds__(128, 3) attention128(ATTEND) { attend<4, 4>(ATTENDED); }
KERNEL __launch_bounds__(128, 2) attention256(ATTEND) { attend<4, 8>(ATTENDED); }
