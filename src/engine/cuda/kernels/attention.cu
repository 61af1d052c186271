// Attention in float for every option: causal, grouped query heads, windows, soft caps, sinks, documents within
// sequences, value heads of another size, a cache of past keys and values. Here are its gradients, and few new tokens
// behind a cache; attention-tiled.cu has the rest. One warp works for one query (or, for the gradients of keys and
// values, one key); the other side passes through shared memory in tiles of 32, one for each lane. B batch, S sequence,
// heads, kvHeads, D size of a head, V size of a value head; D and V up to 256. A window of 0 sees everything, a soft
// cap of 0 caps nothing.

#define LANES 32
#define MOST 8

DEVICE float capped(float score, float cap) { return cap > 0.0f ? cap * tanhf(score / cap) : score; }

DEVICE bool sees(const int* segments, i64 start, int i, int j, int window) {
  return j <= i && (window == 0 || j > i - window) && (segments == 0 || segments[start + i] == segments[start + j]);
}

// Rows [first, first + 32) of head `head` of x [.., heads * size] into tile [32, stride], zeros from `end` on.
DEVICE void loadTile(const A* x, float* tile, i64 start, int first, int end, int heads, int head, int size,
                     int stride) {
  for (int i = threadIdx.x; i < LANES * size; i += blockDim.x) {
    int row = i / size, d = i % size;
    tile[row * stride + d] = first + row < end ? load(x, ((start + first + row) * heads + head) * size + d) : 0.0f;
  }
}

// dots [N * heads]: the sum of out * dout over each value head. A warp for each.
KERNEL attentionDots(const A* out, const A* dout, float* dots, int rows, int V) {
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  float dot = 0.0f;
  for (int d = lane; d < V; d += 32) dot += load(out, (i64)row * V + d) * load(dout, (i64)row * V + d);
  dot = warpSum(dot);
  if (lane == 0) dots[row] = dot;
}

// dsinks [heads]: a sink takes probability from all others. A block for each head.
KERNEL attentionSinks(const float* sinks, const float* lse, const float* dots, float* dsinks, int N, int heads) {
  __shared__ float scratch[32];
  int head = blockIdx.x;
  float sum = 0.0f;
  for (int n = threadIdx.x; n < N; n += blockDim.x)
    sum -= expf(sinks[head] - lse[(i64)n * heads + head]) * dots[(i64)n * heads + head];
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) dsinks[head] = sum;
}

// The gradient of one score, from its product with the probability's: scale * slope of the cap * p * (dp - dot).
DEVICE float scoreGrad(float raw, float scale, float cap, float p, float dp, float dot) {
  float t = cap > 0.0f ? tanhf(raw / cap) : 0.0f;
  return scale * (1.0f - t * t) * p * (dp - dot);
}

// Gradients of queries. Grid: S in groups of as many queries as warps, heads, B. Shared: queries [warps, D], dout
// [warps, V], keys [32, D + 1], values [32, V + 1].
KERNEL attentionGradQ(const A* q, const A* k, const A* v, const int* segments, const A* dout, const float* lse,
                      const float* dots, A* dq, int S, int heads, int kvHeads, int D, int V, float scale, int window,
                      float cap) {
  extern __shared__ float shared[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float* query = shared + warp * D;
  float* grad = shared + warps * D + warp * V;
  float* keys = shared + warps * (D + V);
  float* values = keys + LANES * (D + 1);
  int head = blockIdx.y, kvHead = head * kvHeads / heads;
  int block = blockIdx.x * warps, i = block + warp, last = min(S, block + warps) - 1;
  i64 start = (i64)blockIdx.z * S, row = (start + i) * heads + head;
  bool live = i < S;
  for (int d = lane; d < D; d += LANES) query[d] = live ? load(q, row * D + d) : 0.0f;
  for (int d = lane; d < V; d += LANES) grad[d] = live ? load(dout, row * V + d) : 0.0f;
  float log = live ? lse[row] : 0.0f, dot = live ? dots[row] : 0.0f, result[MOST] = {};
  int first = window > 0 ? max(0, block - window + 1) : 0;
  for (int j0 = first; j0 <= last; j0 += LANES) {
    __syncthreads();
    loadTile(k, keys, start, j0, S, kvHeads, kvHead, D, D + 1);
    loadTile(v, values, start, j0, S, kvHeads, kvHead, V, V + 1);
    __syncthreads();
    int j = j0 + lane;
    float ds = 0.0f;
    if (live && j < S && sees(segments, start, i, j, window)) {
      float raw = 0.0f, dp = 0.0f;
      for (int d = 0; d < D; d++) raw += query[d] * keys[lane * (D + 1) + d];
      for (int d = 0; d < V; d++) dp += grad[d] * values[lane * (V + 1) + d];
      raw *= scale;
      ds = scoreGrad(raw, scale, cap, expf(capped(raw, cap) - log), dp, dot);
    }
    for (int t = 0; t < LANES; t++) {
      float weight = __shfl_sync(0xffffffffu, ds, t);
      for (int c = 0; c < MOST; c++)
        if (c * LANES + lane < D) result[c] += weight * keys[t * (D + 1) + c * LANES + lane];
    }
  }
  if (!live) return;
  for (int c = 0; c < MOST; c++)
    if (c * LANES + lane < D) store(dq, row * D + c * LANES + lane, result[c]);
}

// Gradients of keys and values: a warp for each key sums over the queries of all heads that share it, in their order.
// Grid: S in groups of as many keys as warps, kvHeads, B. Shared: keys [warps, D], values [warps, V], queries
// [32, D + 1], dout [32, V + 1].
KERNEL attentionGradKV(const A* q, const A* k, const A* v, const int* segments, const A* dout, const float* lse,
                       const float* dots, A* dk, A* dv, int S, int heads, int kvHeads, int D, int V, float scale,
                       int window, float cap) {
  extern __shared__ float shared[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float* key = shared + warp * D;
  float* value = shared + warps * D + warp * V;
  float* queries = shared + warps * (D + V);
  float* grads = queries + LANES * (D + 1);
  int kvHead = blockIdx.y, group = heads / kvHeads, block = blockIdx.x * warps, j = block + warp;
  i64 start = (i64)blockIdx.z * S, row = (start + j) * kvHeads + kvHead;
  bool live = j < S;
  for (int d = lane; d < D; d += LANES) key[d] = live ? load(k, row * D + d) : 0.0f;
  for (int d = lane; d < V; d += LANES) value[d] = live ? load(v, row * V + d) : 0.0f;
  float resultK[MOST] = {}, resultV[MOST] = {};
  int end = window > 0 ? min(S, block + warps - 1 + window) : S;
  for (int head = kvHead * group; head < (kvHead + 1) * group; head++)
    for (int i0 = block; i0 < end; i0 += LANES) {
      __syncthreads();
      loadTile(q, queries, start, i0, S, heads, head, D, D + 1);
      loadTile(dout, grads, start, i0, S, heads, head, V, V + 1);
      __syncthreads();
      int i = i0 + lane;
      float p = 0.0f, ds = 0.0f;
      if (live && i < S && sees(segments, start, i, j, window)) {
        float raw = 0.0f, dp = 0.0f;
        i64 query = (start + i) * heads + head;
        for (int d = 0; d < D; d++) raw += key[d] * queries[lane * (D + 1) + d];
        for (int d = 0; d < V; d++) dp += value[d] * grads[lane * (V + 1) + d];
        raw *= scale;
        p = expf(capped(raw, cap) - lse[query]);
        ds = scoreGrad(raw, scale, cap, p, dp, dots[query]);
      }
      for (int t = 0; t < LANES; t++) {
        float weightK = __shfl_sync(0xffffffffu, ds, t), weightV = __shfl_sync(0xffffffffu, p, t);
        for (int c = 0; c < MOST; c++) {
          int d = c * LANES + lane;
          if (d < D) resultK[c] += weightK * queries[t * (D + 1) + d];
          if (d < V) resultV[c] += weightV * grads[t * (V + 1) + d];
        }
      }
    }
  if (!live) return;
  for (int c = 0; c < MOST; c++) {
    int d = c * LANES + lane;
    if (d < D) store(dk, row * D + d, resultK[c]);
    if (d < V) store(dv, row * V + d, resultV[c]);
  }
}

// For few new tokens: new token i of row b stands at lengths[b] + i - start and sees the row's past keys [B, kvHeads, C, D], then the new
// ones from its start up to its own; without `starts` all begin at 0. A block for each (new token, head, row): its warps
// share the keys and join what they found at the end, in a fixed order. Shared: query [D], in whole fours because the
// compiler reads it so, results [warps, V], tops and sums [2, warps].
KERNEL cachedAttention(const A* q, const A* k, const A* v, const A* pastK, const A* pastV, const int* lengths,
                       const float* sinks, const int* starts, A* out, int T, int heads, int kvHeads, int D, int V,
                       int C, float scale, int window, float cap) {
  extern __shared__ float shared[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float* query = shared;
  float* results = query + (D + 3) / 4 * 4;
  float* tops = results + warps * V;
  float* sums = tops + warps;
  int token = blockIdx.x, head = blockIdx.y, b = blockIdx.z, kvHead = head * kvHeads / heads;
  int start = starts == 0 ? 0 : starts[b * T + token], past = lengths[b], position = past + token - start;
  i64 row = ((i64)b * T + token) * heads + head, cache = ((i64)b * kvHeads + kvHead) * C;
  for (int d = threadIdx.x; d < D; d += blockDim.x) query[d] = load(q, row * D + d);
  __syncthreads();
  float top = minusInfinity(), sum = 0.0f, result[MOST] = {};
  int first = window > 0 ? max(0, position - window + 1) : 0;
  for (int j0 = first + warp * LANES; j0 <= position; j0 += warps * LANES) {
    int j = j0 + lane;
    float score = minusInfinity();
    i64 fresh = ((i64)b * T + start + j - past) * kvHeads + kvHead;
    if (j <= position) {
      const A* key = j < past ? pastK + (cache + j) * D : k + fresh * D;
      float dot = 0.0f;
      for (int d = 0; d < D; d++) dot += query[d] * load(key, d);
      score = capped(dot * scale, cap);
    }
    float next = fmaxf(top, warpMax(score));
    float p = j <= position ? expf(score - next) : 0.0f, shrink = expf(top - next);
    sum = sum * shrink + warpSum(p);
    top = next;
    for (int c = 0; c < MOST; c++) result[c] *= shrink;
    for (int t = 0; t < min(LANES, position - j0 + 1); t++) {
      float weight = __shfl_sync(0xffffffffu, p, t);
      int at = j0 + t;
      const A* value =
          at < past ? pastV + (cache + at) * V : v + (((i64)b * T + start + at - past) * kvHeads + kvHead) * V;
      for (int c = 0; c < MOST; c++)
        if (c * LANES + lane < V) result[c] += weight * load(value, c * LANES + lane);
    }
  }
  for (int c = 0; c < MOST; c++)
    if (c * LANES + lane < V) results[warp * V + c * LANES + lane] = result[c];
  if (lane == 0) {
    tops[warp] = top;
    sums[warp] = sum;
  }
  __syncthreads();
  float most = sinks == 0 ? minusInfinity() : sinks[head];
  for (int w = 0; w < warps; w++) most = fmaxf(most, tops[w]);
  float total = sinks == 0 ? 0.0f : expf(sinks[head] - most);
  for (int w = 0; w < warps; w++) total += sums[w] * expf(tops[w] - most);
  for (int d = threadIdx.x; d < V; d += blockDim.x) {
    float value = 0.0f;
    for (int w = 0; w < warps; w++) value += results[w * V + d] * expf(tops[w] - most);
    store(out, row * V + d, value / total);
  }
}
