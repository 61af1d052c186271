// Gradients of attention in float for every option (see attention.cu), by the tiles of tiles.cuh: for those of queries
// a warp's rows are queries and keys pass by, for those of keys and values it is the other way round.

// The gradient of one score, from its product with the probability's: scale * slope of the cap * p * (dp - dot).
DEVICE float scoreGrad(float raw, float scale, float cap, float p, float dp, float dot) {
  float t = cap > 0.0f ? tanhf(raw / cap) : 0.0f;
  return scale * (1.0f - t * t) * p * (dp - dot);
}

// Both sides of a block: its own rows, of which each warp has 4 * R, and where shared memory has what they need: rows
// as they are multiplied by a tile's, [D / 4, rows + 1, 4] and [V / 4, rows + 1, 4]; a tile, [D / 4, 33, 4], [V / 4,
// 33, 4] or [32, 32 * STEPS]; weights [rows, 40]; bounds [rows, 4].
template <int R, int STEPS>
struct Sides {
  int column, place, held, fours, foursV;
  float *own, *ownV, *tile, *weights;
  int4* bounds;
  DEVICE Sides(float4* shared, int D, int V) {
    column = columnOf(), place = (threadIdx.x >> 5) * 4 * R + groupOf(), held = (blockDim.x >> 5) * 4 * R;
    fours = (D + 3) / 4, foursV = (V + 3) / 4;
    own = (float*)shared;
    ownV = own + 4 * fours * (held + 1);
    tile = ownV + 4 * foursV * (held + 1);
    weights = tile + max(4 * max(fours, foursV) * (KEYS + 1), KEYS * 32 * STEPS);
    bounds = (int4*)(weights + held * WEIGHTS);
    weights += place * WEIGHTS;
  }
};

// Gradients of queries. Grid: S in groups of as many queries as a block has, heads, B.
template <int R, int STEPS>
DEVICE void gradQ(const A* q, const A* k, const A* v, const int* segments, const A* dout, const float* lse,
                  const float* dots, A* dq, int S, int heads, int kvHeads, int D, int V, float scale, int window,
                  float cap) {
  extern __shared__ float4 shared4[];
  Sides<R, STEPS> s(shared4, D, V);
  int head = blockIdx.y, kvHead = head * kvHeads / heads;
  // The last queries see the most keys: they begin first.
  int block = (gridDim.x - 1 - blockIdx.x) * s.held, end = min(S, block + s.held);
  i64 start = (i64)blockIdx.z * S;
  const A *keys = k + (start * kvHeads + kvHead) * D, *values = v + (start * kvHeads + kvHead) * V;
  fill(q + (start * heads + head) * D, heads * D, D, s.own, s.held, block, end, 4 * s.fours, 4, 4 * (s.held + 1));
  fill(dout + (start * heads + head) * V, heads * V, V, s.ownV, s.held, block, end, 4 * s.foursV, 4, 4 * (s.held + 1));
  for (int n = threadIdx.x; n < s.held; n += blockDim.x) {
    int i = block + n;
    s.bounds[n].x = window > 0 ? i - window + 1 : 0;
    s.bounds[n].y = i < end ? i : -1;
    s.bounds[n].z = segments != 0 && i < end ? segments[start + i] : 0;
  }
  __syncthreads();
  float result[R][STEPS][4] = {};
#pragma unroll 1
  for (int j0 = window > 0 ? max(0, block - window + 1) : 0; j0 < end; j0 += KEYS) {
    u32 seen = pairsOf<R>(s.bounds + s.place, segments == 0 ? 0 : segments + start, j0, end);
    // All warps are done with the tile before.
    if (!__syncthreads_or(seen != 0)) continue;
    bool isBusy = __any_sync(0xffffffffu, seen != 0);
    float raw[R][EACH] = {}, dp[R][EACH] = {};
    fill(keys, kvHeads * D, D, s.tile, KEYS, j0, end, 4 * s.fours, 4, 4 * (KEYS + 1));
    __syncthreads();
    if (isBusy) multiply<R>(s.own + 4 * s.place, s.tile + 4 * s.column, s.fours, s.held, raw);
    __syncthreads();
    fill(values, kvHeads * V, V, s.tile, KEYS, j0, end, 4 * s.foursV, 4, 4 * (KEYS + 1));
    __syncthreads();
    if (isBusy) {
      multiply<R>(s.ownV + 4 * s.place, s.tile + 4 * s.column, s.foursV, s.held, dp);
#pragma unroll
      for (int r = 0; r < R; r++) {
        int i = block + s.place + 4 * r;
        i64 row = (start + i) * heads + head;
        float log = i < end ? lse[row] : 0.0f, dot = i < end ? dots[row] : 0.0f;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
          float x = raw[r][e] * scale, ds = 0.0f;
          if (seen >> (r * EACH + e) & 1) ds = scoreGrad(x, scale, cap, expf(capped(x, cap) - log), dp[r][e], dot);
          s.weights[r * 4 * WEIGHTS + s.column + e * COLUMNS] = ds;
        }
      }
    }
    __syncthreads();
    fill(keys, kvHeads * D, D, s.tile, KEYS, j0, end, 32 * STEPS, 32 * STEPS, 4);
    __syncthreads();
    if (isBusy) addValues<R, STEPS>(s.weights, s.tile + 4 * s.column, result);
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    int i = block + s.place + 4 * r;
    if (i < end) put<STEPS>(dq, ((start + i) * heads + head) * D, D, s.column, result[r]);
  }
}

// Gradients of keys and values, summed over the queries of all heads that share them, in their order. Grid: S in groups
// of as many keys as a block has, kvHeads, B.
template <int R, int STEPS>
DEVICE void gradKV(const A* q, const A* k, const A* v, const int* segments, const A* dout, const float* lse,
                   const float* dots, A* dk, A* dv, int S, int heads, int kvHeads, int D, int V, float scale,
                   int window, float cap) {
  extern __shared__ float4 shared4[];
  Sides<R, STEPS> s(shared4, D, V);
  int kvHead = blockIdx.y, group = heads / kvHeads, block = blockIdx.x * s.held, end = min(S, block + s.held);
  // Queries up to here see a key of the block.
  int last = window > 0 ? min(S, end - 1 + window) : S;
  i64 start = (i64)blockIdx.z * S, from = start * kvHeads + kvHead;
  fill(k + from * D, kvHeads * D, D, s.own, s.held, block, end, 4 * s.fours, 4, 4 * (s.held + 1));
  fill(v + from * V, kvHeads * V, V, s.ownV, s.held, block, end, 4 * s.foursV, 4, 4 * (s.held + 1));
  for (int n = threadIdx.x; n < s.held; n += blockDim.x) {
    int j = block + n;
    s.bounds[n].x = j;
    s.bounds[n].y = j >= end ? -1 : window > 0 ? min(S, j + window) - 1 : S - 1;
    s.bounds[n].z = segments != 0 && j < end ? segments[start + j] : 0;
  }
  __syncthreads();
  float resultK[R][STEPS][4] = {}, resultV[R][STEPS][4] = {};
#pragma unroll 1
  for (int head = kvHead * group; head < (kvHead + 1) * group; head++) {
    const A *queries = q + (start * heads + head) * D, *grads = dout + (start * heads + head) * V;
#pragma unroll 1
    for (int i0 = block; i0 < last; i0 += KEYS) {
      u32 seen = pairsOf<R>(s.bounds + s.place, segments == 0 ? 0 : segments + start, i0, last);
      // All warps are done with the tile before.
      if (!__syncthreads_or(seen != 0)) continue;
      bool isBusy = __any_sync(0xffffffffu, seen != 0);
      // Scores, and then their gradients.
      float raw[R][EACH] = {}, dp[R][EACH] = {};
      fill(queries, heads * D, D, s.tile, KEYS, i0, last, 4 * s.fours, 4, 4 * (KEYS + 1));
      __syncthreads();
      if (isBusy) multiply<R>(s.own + 4 * s.place, s.tile + 4 * s.column, s.fours, s.held, raw);
      __syncthreads();
      fill(grads, heads * V, V, s.tile, KEYS, i0, last, 4 * s.foursV, 4, 4 * (KEYS + 1));
      __syncthreads();
      if (isBusy) {
        multiply<R>(s.ownV + 4 * s.place, s.tile + 4 * s.column, s.foursV, s.held, dp);
#pragma unroll
        for (int e = 0; e < EACH; e++) {
          int i = i0 + s.column + e * COLUMNS;
          i64 row = (start + i) * heads + head;
          float log = i < last ? lse[row] : 0.0f, dot = i < last ? dots[row] : 0.0f;
#pragma unroll
          for (int r = 0; r < R; r++) {
            float x = raw[r][e] * scale, p = 0.0f;
            raw[r][e] = 0.0f;
            if (seen >> (r * EACH + e) & 1) {
              p = expf(capped(x, cap) - log);
              raw[r][e] = scoreGrad(x, scale, cap, p, dp[r][e], dot);
            }
            s.weights[r * 4 * WEIGHTS + s.column + e * COLUMNS] = p;
          }
        }
      }
      __syncthreads();
      fill(grads, heads * V, V, s.tile, KEYS, i0, last, 32 * STEPS, 32 * STEPS, 4);
      __syncthreads();
      if (isBusy) addValues<R, STEPS>(s.weights, s.tile + 4 * s.column, resultV);
      __syncthreads();
#pragma unroll
      for (int r = 0; r < R; r++)
#pragma unroll
        for (int e = 0; e < EACH; e++) s.weights[r * 4 * WEIGHTS + s.column + e * COLUMNS] = raw[r][e];
      fill(queries, heads * D, D, s.tile, KEYS, i0, last, 32 * STEPS, 32 * STEPS, 4);
      __syncthreads();
      if (isBusy) addValues<R, STEPS>(s.weights, s.tile + 4 * s.column, resultK);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    int j = block + s.place + 4 * r;
    if (j >= end) continue;
    i64 row = (start + j) * kvHeads + kvHead;
    put<STEPS>(dk, row * D, D, s.column, resultK[r]);
    put<STEPS>(dv, row * V, V, s.column, resultV[r]);
  }
}

// Arguments of the kernels, and their names.
#define GIVE const A *q, const A *k, const A *v, const int *segments, const A *dout, const float *lse, const float *dots
#define SIZE int S, int heads, int kvHeads, int D, int V, float scale, int window, float cap
#define TO A *dk, A *dv
#define GIVEN q, k, v, segments, dout, lse, dots
#define SIZED S, heads, kvHeads, D, V, scale, window, cap

// By the most elements of a head and a value head; each size is compiled by itself, since it takes seconds.
#if HEAD_SIZE == 64
KERNEL __launch_bounds__(128, 2) attentionGradQ64(GIVE, A* dq, SIZE) { gradQ<8, 2>(GIVEN, dq, SIZED); }
KERNEL __launch_bounds__(128, 3) attentionGradKV64(GIVE, TO, SIZE) { gradKV<4, 2>(GIVEN, dk, dv, SIZED); }
#elif HEAD_SIZE == 128
KERNEL __launch_bounds__(128, 2) attentionGradQ128(GIVE, A* dq, SIZE) { gradQ<4, 4>(GIVEN, dq, SIZED); }
KERNEL __launch_bounds__(128, 2) attentionGradKV128(GIVE, TO, SIZE) { gradKV<4, 4>(GIVEN, dk, dv, SIZED); }
#else
KERNEL __launch_bounds__(128, 2) attentionGradQ256(GIVE, A* dq, SIZE) { gradQ<4, 8>(GIVEN, dq, SIZED); }
KERNEL __launch_bounds__(128, 2) attentionGradKV256(GIVE, TO, SIZE) { gradKV<2, 8>(GIVEN, dk, dv, SIZED); }
#endif
