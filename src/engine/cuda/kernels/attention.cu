// Attention in float for every option: causal, grouped query heads, windows, soft caps, sinks, documents within
// sequences, value heads of another size, a cache of past keys and values. Here are few new tokens behind a cache, and
// sums that all gradients of attention take; attention-tiled.cu and attention-gradients.cu have the rest. B batch, S
// sequence, heads, kvHeads, D size of a head, V size of a value head; D and V up to 256. A window of 0 sees everything,
// a soft cap of 0 caps nothing.

#define LANES 32
#define MOST 8

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

// For few new tokens: new token i of row b stands at lengths[b] + i - start and sees the row's past keys [B, kvHeads,
// C, D], then the new ones from its start up to its own; without `starts` all begin at 0. A block for each (new token,
// head, row): its warps share the keys, 32 at a time, one for each lane, and join what they found at the end, in a
// fixed order. Shared: query [D], in whole fours because the compiler reads it so, results [warps, V], tops and sums
// [2, warps].
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
