// Attention in bfloat16 by wgmma and TMA, for compute capability 9.0 and heads of 64 or 128 elements, with all that
// attention.cu can do but soft caps. A block of one warpgroup works for 64 queries (or 64 keys); the other side passes
// through a ring of tiles of 64 rows. Several blocks share a multiprocessor, and one multiplies while another does not. Scores never leave the registers. The backward pass is two kernels, as in flash.cu.
//
// Rows [batch * S, heads * D], which may lie apart, are named by tensor maps with boxes of 64 by 64. A tile may reach into the next batch's
// rows, which no pair that is seen has.

#define SIDE 64
#define FLASH_THREADS 128
#define FLASH_WARPS 4
#define BOX_BYTES (SIDE * 64 * 2)
#define LOG2E 1.4426950408889634f

// A ring of tiles in shared memory. Thread 0 fills it; each warp gives a stage back when wgmma has read it. Where
// threads read it themselves each of them does: compute-sanitizer sees the order of the threads that arrive alone.
struct Tiles {
  char* stages;
  u64 *full, *empty;
};

template <int STAGES>
DEVICE Tiles prepareTiles(char* stages, u64* barriers, int arrivals = FLASH_WARPS) {
  Tiles t = {stages, barriers, barriers + STAGES};
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      initBarrier(t.full + i, 1);
      initBarrier(t.empty + i, arrivals);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  return t;
}

// 64 rows of a head, from `row` on: as many boxes as the head has times 64 elements.
template <int D>
DEVICE void loadHead(char* to, const char* map, int head, int row, u64* barrier) {
#pragma unroll
  for (int h = 0; h < D / 64; h++) loadBox(to + h * BOX_BYTES, map, head * D + h * 64, row, barrier);
}

// Where 16 elements, the k'th of a head, of a tile's rows lie: as an operand [64 rows, 16].
template <int D>
DEVICE u64 alongHead(const char* tile, int k) {
  return operandAt(tile + (k >> 2) * BOX_BYTES, 0) + (k & 3) * (32 >> 4);
}

// Where 16 rows, the k'th of a tile, lie: as an operand [16, D].
template <int D>
DEVICE u64 alongRows(const char* tile, int k) {
  return operandAt(tile, BOX_BYTES) + k * (2048 >> 4);
}

// c [64, 64] = rows of a times rows of b.
template <int D>
DEVICE void rowProducts(float* c, const char* a, const char* b) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) wgmma64<0, 0>(c, alongHead<D>(a, k), alongHead<D>(b, k), k);
}

// out [64, D] += p [64, 64] times the rows of b.
template <int D>
DEVICE void addRows(float* out, const u32 (*p)[4], const char* b) {
#pragma unroll
  for (int k = 0; k < SIDE / 16; k++)
    if (D == 64)
      wgmma64<1>(out, p[k], alongRows<D>(b, k), 1);
    else
      wgmma128<1>(out, p[k], alongRows<D>(b, k), 1);
}

// p [64, 64] as a left operand in bf16.
DEVICE void pack(u32 (*to)[4], const float* p) {
#pragma unroll
  for (int k = 0; k < SIDE / 16; k++)
#pragma unroll
    for (int i = 0; i < 4; i++) to[k][i] = packed(p[8 * k + 2 * i], p[8 * k + 2 * i + 1]);
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

// A warp's 16 rows of c [64, D], times a factor for each half of them, to rows [row, ..) of a head of out, by way of
// shared memory [16, D] that belongs to the warp.
template <int D>
DEVICE void storeHead(const float* c, const float* factors, bf16* own, bf16* out, i64 start, int row, int S, int stride,
                      int head, int lane) {
#pragma unroll
  for (int j = 0; j < D / 8; j += 2)
    storeMatrices(chunkAt<D>(own, lane & 15, j + (lane >> 4)), packed(c[4 * j] * factors[0], c[4 * j + 1] * factors[0]),
                  packed(c[4 * j + 2] * factors[1], c[4 * j + 3] * factors[1]),
                  packed(c[4 * j + 4] * factors[0], c[4 * j + 5] * factors[0]),
                  packed(c[4 * j + 6] * factors[1], c[4 * j + 7] * factors[1]));
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    int r = i / (D / 8), chunk = i % (D / 8);
    if (row + r < S)
      *(uint4*)(out + (start + row + r) * stride + head * D + chunk * 8) = *(uint4*)chunkAt<D>(own, r, chunk);
  }
}

// Grid: S in groups of 64, heads, B.
template <int D, int STAGES>
DEVICE void forward(char* memory, const char* q, const char* k, const char* v, const float* sinks, const int* segments,
                    bf16* out, float* lse, int S, int heads, int kvHeads, float scale, int window) {
  constexpr int TILE = SIDE * D * 2;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int head = blockIdx.y, kvHead = head * kvHeads / heads;
  // Later queries see more keys: they begin first.
  int block = (gridDim.x - 1 - blockIdx.x) * SIDE, last = min(S, block + SIDE);
  int begin = blockIdx.z * S, first = window > 0 ? max(0, block - window + 1) / SIDE * SIDE : 0;
  int tiles = (last - first + SIDE - 1) / SIDE;
  i64 start = begin;
  char* queries = memory;
  u64* barriers = (u64*)(memory + (1 + 2 * STAGES) * TILE);
  if (threadIdx.x == 0) initBarrier(barriers, 1);
  acquireMaps(q, 1);
  acquireMaps(k, 1);
  acquireMaps(v, 1);
  Tiles ring = prepareTiles<STAGES>(memory + TILE, barriers + 1);
  __syncthreads();
  auto fetch = [&](int t) {
    u64* full = ring.full + t % STAGES;
    char* to = ring.stages + t % STAGES * 2 * TILE;
    if (t >= STAGES) waitFor(ring.empty + t % STAGES, (t / STAGES - 1) & 1);
    expectBytes(full, 2 * TILE);
    loadHead<D>(to, k, kvHead, begin + first + t * SIDE, full);
    loadHead<D>(to + TILE, v, kvHead, begin + first + t * SIDE, full);
  };
  if (threadIdx.x == 0) {
    expectBytes(barriers, TILE);
    loadHead<D>(queries, q, head, begin + block, barriers);
    for (int t = 0; t < min(STAGES - 1, tiles); t++) fetch(t);
  }
  // Scores are kept before the scale, which goes with the change to powers of two.
  float unit = scale * LOG2E, result[D / 2], top[2], sum[2];
  top[0] = top[1] = sinks == 0 ? minusInfinity() : sinks[head] / scale;
  // Each of the four lanes of a row counts its own columns; the first one has the sink.
  sum[0] = sum[1] = sinks != 0 && (lane & 3) == 0 ? 1.0f : 0.0f;
#pragma unroll
  for (int i = 0; i < D / 2; i++) result[i] = 0.0f;
  int row = block + warp * 16 + (lane >> 2);
  waitFor(barriers, 0);
  for (int t = 0; t < tiles; t++) {
    if (threadIdx.x == 0 && t + STAGES - 1 < tiles) fetch(t + STAGES - 1);
    __syncwarp();
    int stage = t % STAGES, j0 = first + t * SIDE;
    char *keys = ring.stages + stage * 2 * TILE, *values = keys + TILE;
    waitFor(ring.full + stage, t / STAGES & 1);
    float s[SIDE / 2];
    beginWgmma();
    rowProducts<D>(s, queries, keys);
    commitWgmma();
    waitWgmma<0>();
    // Most tiles are seen whole; only the others are asked element by element.
    if (!(j0 + SIDE - 1 <= block + warp * 16 && window == 0 && segments == 0))
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (!sees(segments, start, row + (e >> 1) * 8, j0 + n * 8 + (lane & 3) * 2 + (e & 1), S, window))
            s[4 * n + e] = minusInfinity();
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < 8; n++) most = fmaxf(most, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
      most = rowMax(most);
      float base = most == minusInfinity() ? 0.0f : most * unit, shrink = power2(top[h] * unit - base), added = 0.0f;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) added += s[4 * n + e] = power2(s[4 * n + e] * unit - base);
#pragma unroll
      for (int d = 0; d < D / 8; d++) {
        result[4 * d + 2 * h] *= shrink;
        result[4 * d + 2 * h + 1] *= shrink;
      }
      sum[h] = sum[h] * shrink + added;
      top[h] = most;
    }
    u32 p[SIDE / 16][4];
    pack(p, s);
    beginWgmma();
    addRows<D>(result, p, values);
    commitWgmma();
    waitWgmma<0>();
    __syncwarp();
    if (lane == 0) arrive(ring.empty + stage);
  }
  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float total = rowSum(sum[h]);
    inverse[h] = 1.0f / total;
    if (row + 8 * h < S && (lane & 3) == 0 && lse != 0)
      lse[(start + row + 8 * h) * heads + head] = top[h] * unit / LOG2E + logf(total);
  }
  __syncthreads();
  storeHead<D>(result, inverse, (bf16*)queries + warp * 16 * D, out, start, block + warp * 16, S, heads * D,
               head, lane);
}

// Gradients of queries, whose rows lie `stride` elements apart; and, for `gradKV`, the logs of the denominators in powers of two and the dots of out and dout:
// stats [2, B, heads, padded], `padded` being S up to a multiple of 64. Grid as of `forward`.
template <int D, int STAGES>
DEVICE void gradQ(char* memory, const char* q, const char* k, const char* v, const char* dout, const int* segments,
                  const bf16* out, const bf16* grad, const float* lse, float* stats, bf16* dq, int S, int heads,
                  int kvHeads, float scale, int window, int padded, int stride) {
  constexpr int TILE = SIDE * D * 2;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int head = blockIdx.y, kvHead = head * kvHeads / heads;
  int block = (gridDim.x - 1 - blockIdx.x) * SIDE, last = min(S, block + SIDE);
  int begin = blockIdx.z * S, first = window > 0 ? max(0, block - window + 1) / SIDE * SIDE : 0;
  int tiles = (last - first + SIDE - 1) / SIDE;
  i64 start = begin;
  char *queries = memory, *grads = memory + TILE;
  u64* barriers = (u64*)(memory + 2 * (1 + STAGES) * TILE);
  if (threadIdx.x == 0) initBarrier(barriers, 1);
  acquireMaps(q, 1);
  acquireMaps(k, 1);
  acquireMaps(v, 1);
  acquireMaps(dout, 1);
  Tiles ring = prepareTiles<STAGES>(memory + 2 * TILE, barriers + 1);
  __syncthreads();
  auto fetch = [&](int t) {
    u64* full = ring.full + t % STAGES;
    char* to = ring.stages + t % STAGES * 2 * TILE;
    if (t >= STAGES) waitFor(ring.empty + t % STAGES, (t / STAGES - 1) & 1);
    expectBytes(full, 2 * TILE);
    loadHead<D>(to, k, kvHead, begin + first + t * SIDE, full);
    loadHead<D>(to + TILE, v, kvHead, begin + first + t * SIDE, full);
  };
  if (threadIdx.x == 0) {
    expectBytes(barriers, 2 * TILE);
    loadHead<D>(queries, q, head, begin + block, barriers);
    loadHead<D>(grads, dout, head, begin + block, barriers);
    for (int t = 0; t < min(STAGES - 1, tiles); t++) fetch(t);
  }
  // Two lanes have half a row each; then each lane gets what belongs to its own rows.
  int rows = block + warp * 16;
  float part = 0.0f, log = 0.0f;
  if (rows + (lane >> 1) < S) {
    i64 at = ((start + rows + (lane >> 1)) * heads + head) * D + (lane & 1) * (D / 2);
#pragma unroll
    for (int i = 0; i < D / 2; i += 8) {
      float a[8], b[8];
      load8(out, at + i, a);
      load8(grad, at + i, b);
#pragma unroll
      for (int j = 0; j < 8; j++) part += a[j] * b[j];
    }
    log = lse[(start + rows + (lane >> 1)) * heads + head] * LOG2E;
  }
  part += __shfl_xor_sync(0xffffffffu, part, 1);
  if (rows + (lane >> 1) < padded)
    stats[((lane & 1) * (i64)gridDim.z * heads + (i64)blockIdx.z * heads + head) * padded + rows + (lane >> 1)] =
        lane & 1 ? part : log;
  float logs[2], dots[2], unit = scale * LOG2E, result[D / 2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    logs[h] = __shfl_sync(0xffffffffu, log, 2 * ((lane >> 2) + 8 * h));
    dots[h] = __shfl_sync(0xffffffffu, part, 2 * ((lane >> 2) + 8 * h));
  }
#pragma unroll
  for (int i = 0; i < D / 2; i++) result[i] = 0.0f;
  int row = rows + (lane >> 2);
  waitFor(barriers, 0);
  for (int t = 0; t < tiles; t++) {
    if (threadIdx.x == 0 && t + STAGES - 1 < tiles) fetch(t + STAGES - 1);
    __syncwarp();
    int stage = t % STAGES, j0 = first + t * SIDE;
    char *keys = ring.stages + stage * 2 * TILE, *values = keys + TILE;
    waitFor(ring.full + stage, t / STAGES & 1);
    float s[SIDE / 2], dp[SIDE / 2];
    beginWgmma();
    rowProducts<D>(s, queries, keys);
    commitWgmma();
    rowProducts<D>(dp, grads, values);
    commitWgmma();
    waitWgmma<1>();
#pragma unroll
    for (int i = 0; i < SIDE / 2; i++) s[i] = power2(s[i] * unit - logs[(i >> 1) & 1]);
    if (!(j0 + SIDE - 1 <= rows && window == 0 && segments == 0 && rows + 16 <= S))
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (!sees(segments, start, row + (e >> 1) * 8, j0 + n * 8 + (lane & 3) * 2 + (e & 1), S, window))
            s[4 * n + e] = 0.0f;
    waitWgmma<0>();
#pragma unroll
    for (int i = 0; i < SIDE / 2; i++) s[i] = s[i] == 0.0f ? 0.0f : s[i] * (dp[i] - dots[(i >> 1) & 1]);
    u32 p[SIDE / 16][4];
    pack(p, s);
    beginWgmma();
    addRows<D>(result, p, keys);
    commitWgmma();
    waitWgmma<0>();
    __syncwarp();
    if (lane == 0) arrive(ring.empty + stage);
  }
  float factors[2] = {scale, scale};
  __syncthreads();
  storeHead<D>(result, factors, (bf16*)queries + warp * 16 * D, dq, start, rows, S, stride, head, lane);
}

// Gradients of keys and values, whose rows lie strideK and strideV elements apart. Grid: S in groups of 64, kvHeads, B.
template <int D, int STAGES>
DEVICE void gradKV(char* memory, const char* q, const char* k, const char* v, const char* dout, const int* segments,
                   const float* stats, bf16* dk, bf16* dv, int S, int heads, int kvHeads, float scale, int window,
                   int padded, int strideK, int strideV) {
  constexpr int TILE = SIDE * D * 2, STAGE = 2 * TILE + 1024;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int kvHead = blockIdx.y, each = heads / kvHeads;
  int block = blockIdx.x * SIDE, begin = blockIdx.z * S;
  int end = window > 0 ? min(S, block + SIDE - 1 + window) : S, tiles = (end - block + SIDE - 1) / SIDE;
  i64 start = begin, statsOf = (i64)gridDim.z * heads * padded;
  char *keys = memory, *values = memory + TILE;
  u64* barriers = (u64*)(memory + 2 * TILE + STAGES * STAGE);
  if (threadIdx.x == 0) initBarrier(barriers, 1);
  acquireMaps(q, 1);
  acquireMaps(k, 1);
  acquireMaps(v, 1);
  acquireMaps(dout, 1);
  Tiles ring = prepareTiles<STAGES>(memory + 2 * TILE, barriers + 1, FLASH_THREADS);
  __syncthreads();
  int steps = each * tiles;
  auto fetch = [&](int t) {
    u64* full = ring.full + t % STAGES;
    char* to = ring.stages + t % STAGES * STAGE;
    int head = kvHead * each + t / tiles, i0 = block + t % tiles * SIDE;
    const float* of = stats + ((i64)blockIdx.z * heads + head) * padded + i0;
    if (t >= STAGES) waitFor(ring.empty + t % STAGES, (t / STAGES - 1) & 1);
    expectBytes(full, 2 * TILE + 2 * SIDE * 4);
    loadHead<D>(to, q, head, begin + i0, full);
    loadHead<D>(to + TILE, dout, head, begin + i0, full);
    loadBytes(to + 2 * TILE, of, SIDE * 4, full);
    loadBytes(to + 2 * TILE + SIDE * 4, of + statsOf, SIDE * 4, full);
  };
  if (threadIdx.x == 0) {
    expectBytes(barriers, 2 * TILE);
    loadHead<D>(keys, k, kvHead, begin + block, barriers);
    loadHead<D>(values, v, kvHead, begin + block, barriers);
    for (int t = 0; t < min(STAGES - 1, steps); t++) fetch(t);
  }
  float unit = scale * LOG2E, resultK[D / 2], resultV[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; i++) resultK[i] = resultV[i] = 0.0f;
  int rows = block + warp * 16, row = rows + (lane >> 2);
  waitFor(barriers, 0);
  for (int t = 0; t < steps; t++) {
    if (threadIdx.x == 0 && t + STAGES - 1 < steps) fetch(t + STAGES - 1);
    __syncwarp();
    int stage = t % STAGES, i0 = block + t % tiles * SIDE;
    char *queries = ring.stages + stage * STAGE, *grads = queries + TILE;
    waitFor(ring.full + stage, t / STAGES & 1);
    float s[SIDE / 2], dp[SIDE / 2];
    beginWgmma();
    rowProducts<D>(s, keys, queries);
    commitWgmma();
    rowProducts<D>(dp, values, grads);
    commitWgmma();
    waitWgmma<1>();
    const float2* of = (const float2*)(grads + TILE) + (lane & 3);
#pragma unroll
    for (int n = 0; n < 8; n++) {
      float2 log = of[n * 4];
#pragma unroll
      for (int e = 0; e < 4; e++) s[4 * n + e] = power2(s[4 * n + e] * unit - (e & 1 ? log.y : log.x));
    }
    if (!(i0 >= rows + 15 && i0 + SIDE <= S && window == 0 && segments == 0))
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int j = row + (e >> 1) * 8;
          if (j >= S || !sees(segments, start, i0 + n * 8 + (lane & 3) * 2 + (e & 1), j, S, window))
            s[4 * n + e] = 0.0f;
        }
    u32 p[SIDE / 16][4];
    pack(p, s);
    beginWgmma();
    addRows<D>(resultV, p, grads);
    commitWgmma();
    waitWgmma<1>();
#pragma unroll
    for (int n = 0; n < 8; n++) {
      float2 dot = of[n * 4 + SIDE / 2];
#pragma unroll
      for (int e = 0; e < 4; e++)
        s[4 * n + e] = s[4 * n + e] == 0.0f ? 0.0f : s[4 * n + e] * (dp[4 * n + e] - (e & 1 ? dot.y : dot.x));
    }
    u32 slopes[SIDE / 16][4];
    pack(slopes, s);
    beginWgmma();
    addRows<D>(resultK, slopes, queries);
    commitWgmma();
    waitWgmma<0>();
    arrive(ring.empty + stage);
  }
  float factors[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
  __syncthreads();
  storeHead<D>(resultK, factors, (bf16*)keys + warp * 16 * D, dk, start, rows, S, strideK, kvHead, lane);
  storeHead<D>(resultV, ones, (bf16*)values + warp * 16 * D, dv, start, rows, S, strideV, kvHead, lane);
}

// Kernels for heads of D elements (HEAD_SIZE, 64 or 128): stages, and blocks that share a multiprocessor. Shared memory of each is what
// lowering/rules-attention.ts asks for.
#define FORWARD(D, STAGES, BLOCKS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, BLOCKS)                                                 \
      flash##D(const char* q, const char* k, const char* v, const float* sinks, const int* segments, bf16* out,       \
               float* lse, int S, int heads, int kvHeads, float scale, int window) {                                  \
    extern __shared__ __align__(1024) char memory[];                                                                  \
    forward<D, STAGES>(memory, q, k, v, sinks, segments, out, lse, S, heads, kvHeads, scale, window);                 \
  }
#define GRAD_Q(D, STAGES, BLOCKS)                                                                                     \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, BLOCKS)                                                 \
      flashGradQ##D(const char* q, const char* k, const char* v, const char* dout, const int* segments,               \
                    const bf16* out, const bf16* grad, const float* lse, float* stats, bf16* dq, int S, int heads,    \
                    int kvHeads, float scale, int window, int padded, int stride) {                                   \
    extern __shared__ __align__(1024) char memory[];                                                                  \
    gradQ<D, STAGES>(memory, q, k, v, dout, segments, out, grad, lse, stats, dq, S, heads, kvHeads, scale, window,    \
                     padded, stride);                                                                                 \
  }
#define GRAD_KV(D, STAGES, BLOCKS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(FLASH_THREADS, BLOCKS)                                                 \
      flashGradKV##D(const char* q, const char* k, const char* v, const char* dout, const int* segments,              \
                     const float* stats, bf16* dk, bf16* dv, int S, int heads, int kvHeads, float scale, int window,  \
                     int padded, int strideK, int strideV) {                                                          \
    extern __shared__ __align__(1024) char memory[];                                                                  \
    gradKV<D, STAGES>(memory, q, k, v, dout, segments, stats, dk, dv, S, heads, kvHeads, scale, window, padded,       \
                      strideK, strideV);                                                                              \
  }

#if HEAD_SIZE == 64
FORWARD(64, 2, 4)
GRAD_Q(64, 3, 3)
GRAD_KV(64, 3, 3)
#else
FORWARD(128, 2, 2)
GRAD_Q(128, 2, 2)
GRAD_KV(128, 2, 2)
#endif
