// Attention in float for every option (see attention.cu) and many queries, those of a sequence or new tokens behind a
// cache, by the tiles of tiles.cuh: a warp's rows are queries, and keys pass by, then their values.

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
  int column = columnOf(), held = (blockDim.x >> 5) * 4 * R, fours = (D + 3) / 4;
  // The lane's first query among the block's; the others stand four apart.
  int place = (threadIdx.x >> 5) * 4 * R + groupOf();
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
      u32 seen = pairsOf<R>(bounds + place, segments == 0 ? 0 : segments + start, j0, last);
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
            for (int e = 0; e < EACH; e++) score[r][e] = capped(score[r][e], cap);
#pragma unroll
        for (int r = 0; r < R; r++) {
          float most = minusInfinity();
#pragma unroll
          for (int e = 0; e < EACH; e++) {
            if (!(seen >> (r * EACH + e) & 1)) score[r][e] = minusInfinity();
            most = fmaxf(most, score[r][e]);
          }
          float next = fmaxf(top[r], groupMax(most));
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
    float total = groupSum(sum[r]);
    int i = block + place + 4 * r;
    if (i >= end) continue;
    i64 row = (start + i) * heads + head;
    if (column == 0 && lse != 0) lse[row] = top[r] + logf(total);
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
      for (int e = 0; e < 4; e++) result[r][s][e] /= total;
    put<STEPS>(out, row * V, V, column, result[r]);
  }
}

// Arguments of the kernels, and their names.
#define ATTEND                                                                                                   \
  const A *q, const A *k, const A *v, const A *pastK, const A *pastV, const int *lengths, const float *sinks,    \
      const int *starts, const int *segments, A *out, float *lse, int T, int heads, int kvHeads, int D, int V,   \
      int C, float scale, int window, float cap
#define ATTENDED                                                                                                    \
  q, k, v, pastK, pastV, lengths, sinks, starts, segments, out, lse, T, heads, kvHeads, D, V, C, scale, window, cap

// By the most elements of a value head; each is compiled by itself, since it takes seconds.
#if HEAD_SIZE == 64
KERNEL __launch_bounds__(128, 3) attention64(ATTEND) { attend<8, 2>(ATTENDED); }
#elif HEAD_SIZE == 128
KERNEL __launch_bounds__(128, 3) attention128(ATTEND) { attend<4, 4>(ATTENDED); }
#else
KERNEL __launch_bounds__(128, 2) attention256(ATTEND) { attend<4, 8>(ATTENDED); }
#endif
