// Routers: from logits [N, E] to the K best experts of each token and their weights, and back; a warp for each token.
// The rule's parts are arguments: score (0 softmax, 1 sigmoid, 2 sparsemixer), renormalise (0 or 1) by
// max(sum + plus, atLeast), groups (0: none) of which `kept` stay open, a correction (or null) added for the choice.

#define SOFTMAX 0
#define SIGMOID_SCORE 1
#define SPARSEMIXER 2

// Scores of one token's experts into `scores` [E] of shared memory.
DEVICE void scoresOf(const float* logits, float* scores, int E, int score, int lane) {
  if (score == SIGMOID_SCORE) {
    for (int e = lane; e < E; e += 32) scores[e] = sigmoid(logits[e]);
  } else {
    float top = minusInfinity(), sum = 0.0f;
    for (int e = lane; e < E; e += 32) top = fmaxf(top, logits[e]);
    top = warpMax(top);
    for (int e = lane; e < E; e += 32) sum += scores[e] = expf(logits[e] - top);
    sum = warpSum(sum);
    for (int e = lane; e < E; e += 32) scores[e] /= sum;
  }
  __syncwarp();
}

// Index of the largest of `values` [n]; ties to the lowest index. All lanes get it.
DEVICE int best(const float* values, int n, int lane) {
  float top = minusInfinity();
  int at = n;
  for (int i = lane; i < n; i += 32)
    if (at == n || values[i] > top) {
      top = values[i];
      at = i;
    }
  for (int step = 16; step > 0; step >>= 1) {
    float other = __shfl_xor_sync(0xffffffffu, top, step);
    int place = __shfl_xor_sync(0xffffffffu, at, step);
    if (place < n && (at == n || other > top || (other == top && place < at))) {
      top = other;
      at = place;
    }
  }
  return at;
}

// Closes the experts outside the `kept` best groups; a group is worth the sum of its two best (DeepSeek-V3). `worth`
// [groups] is scratch.
DEVICE void limitToGroups(float* choice, float* worth, int E, int groups, int kept, int lane) {
  int size = E / groups;
  for (int g = lane; g < groups; g += 32) {
    float first = minusInfinity(), second = minusInfinity();
    for (int i = g * size; i < (g + 1) * size; i++) {
      float value = choice[i];
      if (value > first) {
        second = first;
        first = value;
      } else if (value > second)
        second = value;
    }
    worth[g] = size > 1 ? first + second : first;
  }
  __syncwarp();
  // Open groups are marked by a worth of minus infinity.
  for (int i = 0; i < kept; i++) {
    int g = best(worth, groups, lane);
    __syncwarp();
    if (lane == 0) worth[g] = minusInfinity();
    __syncwarp();
  }
  for (int e = lane; e < E; e += 32)
    if (worth[e / size] != minusInfinity()) choice[e] = minusInfinity();
  __syncwarp();
}

// Sparsemixer's probabilities of a choice into `out` [E]: softmax over the logits near the largest one not yet taken
// (modeling_phimoe.py, evaluation). `taken` (or -1) was chosen before.
DEVICE void sparsemixer(const float* logits, float* out, int E, int taken, float jitter, int lane) {
  float top = minusInfinity(), sum = 0.0f;
  for (int e = lane; e < E; e += 32)
    if (e != taken) top = fmaxf(top, logits[e]);
  top = warpMax(top);
  for (int e = lane; e < E; e += 32) {
    bool near = e != taken && !((top - logits[e]) / fmaxf(fabsf(logits[e]), top) > 2.0f * jitter);
    sum += out[e] = near ? expf(logits[e] - top) : 0.0f;
  }
  sum = warpSum(sum);
  for (int e = lane; e < E; e += 32) out[e] /= sum;
  __syncwarp();
}

DEVICE float divisorOf(const float* scores, const int* chosen, int K, int renormalise, float plus, float atLeast) {
  if (!renormalise) return 1.0f;
  float sum = plus;
  for (int k = 0; k < K; k++) sum += scores[chosen[k]];
  return fmaxf(sum, atLeast);
}

// Shared: for each warp scores [E], choice [E] and worth [groups].
KERNEL routeTopK(const float* logits, const float* correction, float* weights, int* experts, int N, int E, int K,
                 int score, float jitter, int renormalise, float plus, float atLeast, int groups, int kept,
                 float scaling) {
  extern __shared__ float shared[];
  takeTurn();
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, token = blockIdx.x * (blockDim.x >> 5) + warp;
  if (token >= N) return;
  float* scores = shared + warp * (2 * E + groups);
  float* choice = scores + E;
  const float* own = logits + (i64)token * E;
  int* chosen = experts + (i64)token * K;
  if (score == SPARSEMIXER) {
    for (int e = lane; e < E; e += 32) choice[e] = own[e];
    __syncwarp();
    int taken = -1;
    for (int k = 0; k < K; k++) {
      int at = best(choice, E, lane);
      sparsemixer(own, scores, E, taken, jitter, lane);
      if (lane == 0) {
        chosen[k] = at;
        weights[(i64)token * K + k] = scaling * scores[at];
        choice[at] = minusInfinity();
      }
      taken = at;
      __syncwarp();
    }
    return;
  }
  scoresOf(own, scores, E, score, lane);
  for (int e = lane; e < E; e += 32) choice[e] = scores[e] + (correction == 0 ? 0.0f : correction[e]);
  __syncwarp();
  if (groups > 0) limitToGroups(choice, choice + E, E, groups, kept, lane);
  for (int k = 0; k < K; k++) {
    int at = best(choice, E, lane);
    __syncwarp();
    if (lane == 0) {
      chosen[k] = at;
      choice[at] = minusInfinity();
    }
    __syncwarp();
  }
  float divisor = divisorOf(scores, chosen, K, renormalise, plus, atLeast);
  for (int k = lane; k < K; k += 32) weights[(i64)token * K + k] = scaling * scores[chosen[k]] / divisor;
}

// The weights that the rule gives to choices made elsewhere. Shared: scores [E] for each warp.
KERNEL routeWeights(const float* logits, const int* experts, float* weights, int N, int E, int K, int score,
                    int renormalise, float plus, float atLeast, float scaling) {
  extern __shared__ float shared[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, token = blockIdx.x * (blockDim.x >> 5) + warp;
  if (token >= N) return;
  float* scores = shared + warp * E;
  scoresOf(logits + (i64)token * E, scores, E, score, lane);
  const int* chosen = experts + (i64)token * K;
  float divisor = divisorOf(scores, chosen, K, renormalise, plus, atLeast);
  for (int k = lane; k < K; k += 32) weights[(i64)token * K + k] = scaling * scores[chosen[k]] / divisor;
}

// dlogits += p * (d - sum(p d))
DEVICE void throughSoftmax(const float* p, const float* d, float* dlogits, int E, int lane) {
  float dot = 0.0f;
  for (int e = lane; e < E; e += 32) dot += p[e] * d[e];
  dot = warpSum(dot);
  for (int e = lane; e < E; e += 32) dlogits[e] += p[e] * (d[e] - dot);
}

// Shared: for each warp scores [E] and their gradients [E].
KERNEL routeTopKGrad(const float* logits, const int* experts, const float* dweights, float* dlogits, int N, int E,
                     int K, int score, float jitter, int renormalise, float plus, float atLeast, float scaling) {
  extern __shared__ float shared[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, token = blockIdx.x * (blockDim.x >> 5) + warp;
  if (token >= N) return;
  float* scores = shared + warp * 2 * E;
  float* spread = scores + E;
  const float* own = logits + (i64)token * E;
  const int* chosen = experts + (i64)token * K;
  const float* d = dweights + (i64)token * K;
  float* out = dlogits + (i64)token * E;
  for (int e = lane; e < E; e += 32) out[e] = spread[e] = 0.0f;
  __syncwarp();
  if (score == SPARSEMIXER) {
    for (int k = 0; k < K; k++) {
      sparsemixer(own, scores, E, k > 0 ? chosen[k - 1] : -1, jitter, lane);
      if (lane == 0) spread[chosen[k]] = scaling * d[k];
      __syncwarp();
      throughSoftmax(scores, spread, out, E, lane);
      __syncwarp();
      if (lane == 0) spread[chosen[k]] = 0.0f;
      __syncwarp();
    }
    return;
  }
  scoresOf(own, scores, E, score, lane);
  float divisor = divisorOf(scores, chosen, K, renormalise, plus, atLeast);
  float pull = 0.0f;
  // Where the floor holds, the divisor is a constant.
  if (renormalise && divisor > atLeast) {
    for (int k = 0; k < K; k++) pull += scaling * d[k] * scores[chosen[k]];
    pull /= divisor * divisor;
  }
  for (int k = lane; k < K; k += 32) spread[chosen[k]] = scaling * d[k] / divisor - pull;
  __syncwarp();
  if (score == SOFTMAX)
    throughSoftmax(scores, spread, out, E, lane);
  else
    for (int e = lane; e < E; e += 32) out[e] = spread[e] * scores[e] * (1.0f - scores[e]);
}

// Column factors of Sinkhorn's iteration (see `sinkhorn` in graph/ir/ir.ts). One block; shared: sums [warps, E] and
// factors [2, E].
KERNEL sinkhorn(const float* logits, float* factors, int N, int E, int iterations, float tolerance, float eps) {
  extern __shared__ float shared[];
  __shared__ float scratch[32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float* sums = shared;
  float* column = shared + warps * E;
  float* next = column + E;
  for (int e = threadIdx.x; e < E; e += blockDim.x) column[e] = 1.0f;
  for (int i = 0; i < iterations; i++) {
    for (int e = lane; e < E; e += 32) sums[warp * E + e] = 0.0f;
    __syncthreads();
    for (int token = warp; token < N; token += warps) {
      const float* own = logits + (i64)token * E;
      float top = minusInfinity(), row = 0.0f;
      for (int e = lane; e < E; e += 32) top = fmaxf(top, own[e]);
      top = warpMax(top);
      for (int e = lane; e < E; e += 32) row += expf(own[e] - top) * column[e];
      row = 1.0f / (N * warpSum(row));
      for (int e = lane; e < E; e += 32) sums[warp * E + e] += row * expf(own[e] - top);
    }
    __syncthreads();
    float moved = 0.0f;
    for (int e = threadIdx.x; e < E; e += blockDim.x) {
      float sum = 0.0f;
      for (int w = 0; w < warps; w++) sum += sums[w * E + e];
      next[e] = 1.0f / (E * (sum + eps));
      moved += fabsf(next[e] - column[e]);
    }
    moved = blockSum(moved, scratch) / E;
    for (int e = threadIdx.x; e < E; e += blockDim.x) column[e] = next[e];
    __syncthreads();
    if (moved <= tolerance) break;
  }
  for (int e = threadIdx.x; e < E; e += blockDim.x) factors[e] = column[e];
}
