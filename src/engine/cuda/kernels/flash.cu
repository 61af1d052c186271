// Attention in bfloat16 on tensor cores, for heads of 64 or 128 elements, with all that attention.cu can do. Blocks of
// 4 warps work for 64 queries (or 64 keys), 16 each; the other side passes through shared memory in tiles of 64, the
// next one while one is at work. Scores never leave the registers. The backward pass is two kernels, one that sums over
// keys and one that sums over queries, so that nothing is added up in an order that may change.

#define ROWS 64
#define FLASH_THREADS 128
#define LOG2E 1.4426950408889634f

// Rows [first, first + 64) of a head of x [.., heads * D] into a tile; zeros from `end` on.
template <int D>
DEVICE void loadTile(bf16* tile, const bf16* x, i64 start, int first, int end, int heads, int head) {
  for (int i = threadIdx.x; i < ROWS * (D / 8); i += FLASH_THREADS) {
    int row = i / (D / 8), chunk = i % (D / 8);
    bool live = first + row < end;
    copyAsync(chunkAt<D>(tile, row, chunk), x + ((start + (live ? first + row : 0)) * heads + head) * D + chunk * 8,
              live);
  }
}

// c [16, 64] = 16 rows of a, from row0 on, times the 64 rows of b, transposed.
template <int D>
DEVICE void scores(float (*c)[4], bf16* a, int row0, bf16* b, int lane) {
#pragma unroll
  for (int n = 0; n < 8; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    u32 left[4];
    loadMatrices(left, chunkAt<D>(a, row0 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < 4; n++) {
      u32 right[4];
      loadMatrices(right, chunkAt<D>(b, n * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
      multiplyAdd(c[2 * n], left, right[0], right[1]);
      multiplyAdd(c[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// out [16, D] += p [16, 64], rounded to bf16, times the 64 rows of b.
template <int D>
DEVICE void accumulate(float (*out)[4], float (*p)[4], bf16* b, int lane) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    u32 left[4] = {packed(p[2 * k][0], p[2 * k][1]), packed(p[2 * k][2], p[2 * k][3]),
                   packed(p[2 * k + 1][0], p[2 * k + 1][1]), packed(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
      u32 right[4];
      loadMatricesTransposed(right, chunkAt<D>(b, k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3), d * 2 + (lane >> 4)));
      multiplyAdd(out[2 * d], left, right[0], right[1]);
      multiplyAdd(out[2 * d + 1], left, right[2], right[3]);
    }
  }
}

DEVICE bool sees(const int* segments, i64 start, int i, int j, int S, int window) {
  return i < S && j <= i && (window == 0 || j > i - window) &&
         (segments == 0 || segments[start + i] == segments[start + j]);
}

DEVICE float rowSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

DEVICE float rowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Grid: S in groups of 64, heads, B. Shared: queries, two tiles of keys, two of values.
template <int D, bool CAPPED>
DEVICE void forward(bf16* shared, const bf16* q, const bf16* k, const bf16* v, const float* sinks, const int* segments,
                    bf16* out, float* lse, int S, int heads, int kvHeads, float scale, int window, float cap) {
  constexpr int TILE = ROWS * D;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y, kvHead = head * kvHeads / heads;
  // Later queries see more keys: they begin first.
  int block = (gridDim.x - 1 - blockIdx.x) * ROWS, last = min(S, block + ROWS);
  i64 start = (i64)blockIdx.z * S;
  bf16 *queries = shared, *keys = shared + TILE, *values = keys + 2 * TILE;
  int first = window > 0 ? max(0, block - window + 1) / ROWS * ROWS : 0;
  loadTile<D>(queries, q, start, block, S, heads, head);
  loadTile<D>(keys, k, start, first, S, kvHeads, kvHead);
  loadTile<D>(values, v, start, first, S, kvHeads, kvHead);
  commitCopies();
  // Scores are kept before the scale, which goes with the change to powers of two.
  float unit = CAPPED ? LOG2E : scale * LOG2E, result[D / 8][4] = {}, top[2], sum[2];
  top[0] = top[1] = sinks == 0 ? minusInfinity() : sinks[head] * LOG2E / unit;
  // Each of the four lanes of a row counts its own columns; the first one has the sink.
  sum[0] = sum[1] = sinks != 0 && (lane & 3) == 0 ? 1.0f : 0.0f;
  int row = block + warp * 16 + (lane >> 2);
  for (int j0 = first, at = 0; j0 < last; j0 += ROWS, at ^= 1) {
    if (j0 + ROWS < last) {
      loadTile<D>(keys + (at ^ 1) * TILE, k, start, j0 + ROWS, S, kvHeads, kvHead);
      loadTile<D>(values + (at ^ 1) * TILE, v, start, j0 + ROWS, S, kvHeads, kvHead);
      commitCopies();
      waitCopies<1>();
    } else
      waitCopies<0>();
    __syncthreads();
    float s[8][4];
    scores<D>(s, queries, warp * 16, keys + at * TILE, lane);
    if (CAPPED)
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = cap * tanhf(s[n][e] * scale / cap);
    // Most tiles are seen whole; only the others are asked element by element.
    if (!(j0 + ROWS - 1 <= block + warp * 16 && window == 0 && segments == 0))
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (!sees(segments, start, row + (e >> 1) * 8, j0 + n * 8 + (lane & 3) * 2 + (e & 1), S, window))
            s[n][e] = minusInfinity();
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < 8; n++) most = fmaxf(most, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      most = rowMax(most);
      float base = most == minusInfinity() ? 0.0f : most * unit, shrink = power2(top[h] * unit - base), added = 0.0f;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) added += s[n][e] = power2(s[n][e] * unit - base);
#pragma unroll
      for (int d = 0; d < D / 8; d++) {
        result[d][2 * h] *= shrink;
        result[d][2 * h + 1] *= shrink;
      }
      sum[h] = sum[h] * shrink + added;
      top[h] = most;
    }
    accumulate<D>(result, s, values + at * TILE, lane);
    __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int i = row + 8 * h;
    float total = rowSum(sum[h]), inverse = 1.0f / total;
    if (i >= S) continue;
    u32* to = (u32*)(out + ((start + i) * heads + head) * D) + (lane & 3);
#pragma unroll
    for (int d = 0; d < D / 8; d++) to[d * 4] = packed(result[d][2 * h] * inverse, result[d][2 * h + 1] * inverse);
    if ((lane & 3) == 0 && lse != 0) lse[(start + i) * heads + head] = top[h] * unit / LOG2E + logf(total);
  }
}

// From raw products s to probabilities, and from dp to the scores' gradients but for the scale, slope * p * (dp - dot).
// log: the log of the denominator, in powers of two; unit: what makes powers of two of raw products.
template <bool CAPPED>
DEVICE void gradients(float& s, float& dp, float unit, float scale, float cap, float log, float dot) {
  if (CAPPED) {
    float t = tanhf(s * scale / cap);
    s = power2(cap * t * LOG2E - log);
    dp = (1.0f - t * t) * s * (dp - dot);
  } else {
    s = power2(s * unit - log);
    dp = s * (dp - dot);
  }
}

template <int D>
DEVICE void storeRows(bf16* out, float (*result)[4], float scale, i64 start, int row, int S, int heads, int head,
                      int lane) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (row + 8 * h >= S) continue;
    u32* to = (u32*)(out + ((start + row + 8 * h) * heads + head) * D) + (lane & 3);
#pragma unroll
    for (int d = 0; d < D / 8; d++) to[d * 4] = packed(result[d][2 * h] * scale, result[d][2 * h + 1] * scale);
  }
}

// Gradients of queries. Grid as of `forward`. Shared: queries, dout, two tiles of keys, two of values.
template <int D, bool CAPPED>
DEVICE void gradQ(bf16* shared, const bf16* q, const bf16* k, const bf16* v, const int* segments, const bf16* dout,
                  const float* lse, const float* dots, bf16* dq, int S, int heads, int kvHeads, float scale, int window,
                  float cap) {
  constexpr int TILE = ROWS * D;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y, kvHead = head * kvHeads / heads;
  int block = (gridDim.x - 1 - blockIdx.x) * ROWS, last = min(S, block + ROWS);
  i64 start = (i64)blockIdx.z * S;
  bf16 *queries = shared, *grads = shared + TILE, *keys = grads + TILE, *values = keys + 2 * TILE;
  int first = window > 0 ? max(0, block - window + 1) / ROWS * ROWS : 0;
  loadTile<D>(queries, q, start, block, S, heads, head);
  loadTile<D>(grads, dout, start, block, S, heads, head);
  loadTile<D>(keys, k, start, first, S, kvHeads, kvHead);
  loadTile<D>(values, v, start, first, S, kvHeads, kvHead);
  commitCopies();
  float unit = scale * LOG2E, result[D / 8][4] = {}, own[2], dot[2];
  int row = block + warp * 16 + (lane >> 2);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    i64 at = (start + row + 8 * h) * heads + head;
    own[h] = row + 8 * h < S ? lse[at] * LOG2E : 0.0f;
    dot[h] = row + 8 * h < S ? dots[at] : 0.0f;
  }
  for (int j0 = first, at = 0; j0 < last; j0 += ROWS, at ^= 1) {
    if (j0 + ROWS < last) {
      loadTile<D>(keys + (at ^ 1) * TILE, k, start, j0 + ROWS, S, kvHeads, kvHead);
      loadTile<D>(values + (at ^ 1) * TILE, v, start, j0 + ROWS, S, kvHeads, kvHead);
      commitCopies();
      waitCopies<1>();
    } else
      waitCopies<0>();
    __syncthreads();
    float s[8][4], dp[8][4];
    scores<D>(s, queries, warp * 16, keys + at * TILE, lane);
    scores<D>(dp, grads, warp * 16, values + at * TILE, lane);
    bool whole = j0 + ROWS - 1 <= block + warp * 16 && window == 0 && segments == 0 && last == block + ROWS;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) gradients<CAPPED>(s[n][e], dp[n][e], unit, scale, cap, own[e >> 1], dot[e >> 1]);
    if (!whole)
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (!sees(segments, start, row + (e >> 1) * 8, j0 + n * 8 + (lane & 3) * 2 + (e & 1), S, window))
            dp[n][e] = 0.0f;
    accumulate<D>(result, dp, keys + at * TILE, lane);
    __syncthreads();
  }
  storeRows<D>(dq, result, scale, start, row, S, heads, head, lane);
}

// Gradients of keys and values. Grid: S in groups of 64, kvHeads, B. Shared: keys, values, two tiles of queries, two of
// dout, and their logs and dots [2, 2, 64] in float.
template <int D, bool CAPPED>
DEVICE void gradKV(bf16* shared, const bf16* q, const bf16* k, const bf16* v, const int* segments, const bf16* dout,
                   const float* lse, const float* dots, bf16* dk, bf16* dv, int S, int heads, int kvHeads, float scale,
                   int window, float cap) {
  constexpr int TILE = ROWS * D;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, kvHead = blockIdx.y, group = heads / kvHeads;
  int block = blockIdx.x * ROWS, end = window > 0 ? min(S, block + ROWS - 1 + window) : S;
  i64 start = (i64)blockIdx.z * S;
  bf16 *keys = shared, *values = shared + TILE, *queries = values + TILE, *grads = queries + 2 * TILE;
  float* logs = (float*)(grads + 2 * TILE);
  loadTile<D>(keys, k, start, block, S, kvHeads, kvHead);
  loadTile<D>(values, v, start, block, S, kvHeads, kvHead);
  float unit = scale * LOG2E, resultK[D / 8][4] = {}, resultV[D / 8][4] = {};
  int row = block + warp * 16 + (lane >> 2), tiles = (end - block + ROWS - 1) / ROWS;
  auto fetch = [&](int step) {
    int head = kvHead * group + step / tiles, i0 = block + step % tiles * ROWS, to = step & 1;
    loadTile<D>(queries + to * TILE, q, start, i0, S, heads, head);
    loadTile<D>(grads + to * TILE, dout, start, i0, S, heads, head);
    commitCopies();
    if (threadIdx.x < ROWS) {
      int i = i0 + threadIdx.x;
      logs[to * 2 * ROWS + threadIdx.x] = i < S ? lse[(start + i) * heads + head] * LOG2E : 0.0f;
      logs[to * 2 * ROWS + ROWS + threadIdx.x] = i < S ? dots[(start + i) * heads + head] : 0.0f;
    }
  };
  fetch(0);
  for (int step = 0; step < group * tiles; step++) {
    int at = step & 1, i0 = block + step % tiles * ROWS;
    if (step + 1 < group * tiles) {
      fetch(step + 1);
      waitCopies<1>();
    } else
      waitCopies<0>();
    __syncthreads();
    float s[8][4], dp[8][4];
    scores<D>(s, keys, warp * 16, queries + at * TILE, lane);
    scores<D>(dp, values, warp * 16, grads + at * TILE, lane);
    bool whole = i0 >= block + warp * 16 + 15 && i0 + ROWS <= S && window == 0 && segments == 0;
    float* of = logs + at * 2 * ROWS + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++)
        gradients<CAPPED>(s[n][e], dp[n][e], unit, scale, cap, of[n * 8 + (e & 1)], of[ROWS + n * 8 + (e & 1)]);
    if (!whole)
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int j = row + (e >> 1) * 8;
          if (j < S && sees(segments, start, i0 + n * 8 + (lane & 3) * 2 + (e & 1), j, S, window)) continue;
          s[n][e] = dp[n][e] = 0.0f;
        }
    accumulate<D>(resultV, s, grads + at * TILE, lane);
    accumulate<D>(resultK, dp, queries + at * TILE, lane);
    __syncthreads();
  }
  storeRows<D>(dk, resultK, scale, start, row, S, kvHeads, kvHead, lane);
  storeRows<D>(dv, resultV, 1.0f, start, row, S, kvHeads, kvHead, lane);
}

// Each kernel for heads of HEAD_SIZE elements, 64 or 128, without or with a soft cap (SOFT_CAP, 0 or 1).
#define FLASH_KERNELS(NAME, D, CAPPED)                                                                             \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, D == 64 ? 4 : 2)                                     \
      flash##NAME(const bf16* q, const bf16* k, const bf16* v, const float* sinks, const int* segments, bf16* out, \
                  float* lse, int S, int heads, int kvHeads, float scale, int window, float cap) {                 \
    extern __shared__ bf16 shared[];                                                                               \
    forward<D, CAPPED>(shared, q, k, v, sinks, segments, out, lse, S, heads, kvHeads, scale, window, cap);         \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, D == 64 ? 3 : 2) flashGradQ##NAME(                   \
      const bf16* q, const bf16* k, const bf16* v, const int* segments, const bf16* dout, const float* lse,        \
      const float* dots, bf16* dq, int S, int heads, int kvHeads, float scale, int window, float cap) {            \
    extern __shared__ bf16 shared[];                                                                               \
    gradQ<D, CAPPED>(shared, q, k, v, segments, dout, lse, dots, dq, S, heads, kvHeads, scale, window, cap);       \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, D == 64 ? 3 : 2) flashGradKV##NAME(                  \
      const bf16* q, const bf16* k, const bf16* v, const int* segments, const bf16* dout, const float* lse,        \
      const float* dots, bf16* dk, bf16* dv, int S, int heads, int kvHeads, float scale, int window, float cap) {  \
    extern __shared__ bf16 shared[];                                                                               \
    gradKV<D, CAPPED>(shared, q, k, v, segments, dout, lse, dots, dk, dv, S, heads, kvHeads, scale, window, cap);  \
  }

#if HEAD_SIZE == 64 && SOFT_CAP
FLASH_KERNELS(64Capped, 64, true)
#elif HEAD_SIZE == 64
FLASH_KERNELS(64, 64, false)
#elif SOFT_CAP
FLASH_KERNELS(128Capped, 128, true)
#else
FLASH_KERNELS(128, 128, false)
#endif
