// Cross entropy over the vocabulary, for runs of tokens whose logits [rows, V] exist only for a moment.

// counted = how many targets are not negative, at least 1. One block.
KERNEL countTargets(const int* targets, float* counted, int n) {
  __shared__ float scratch[32];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += targets[i] >= 0 ? 1.0f : 0.0f;
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) *counted = fmaxf(sum, 1.0f);
}

// Calls `work` with the elements of a row that fall to this thread, in eights where the row's size allows, and the
// first one's place; with `back` they are stored again.
template <class Work>
DEVICE void overRow(A* row, int V, bool back, Work work) {
  float x[8];
  if (V % 8 == 0)
    for (int i = threadIdx.x * 8; i < V; i += blockDim.x * 8) {
      load8(row, i, x);
      work(x, i, 8);
      if (back) store8(row, i, x);
    }
  else
    for (int i = threadIdx.x; i < V; i += blockDim.x) {
      x[0] = load(row, i);
      work(x, i, 1);
      if (back) store(row, i, x[0]);
    }
}

// Logits of each row become cap * tanh(logit / cap) (cap 0: they stay). losses [rows] = -log softmax(logits)[target], 0
// where the target is negative. With `gradient`, logits become their gradients, for a mean over `counted` targets times
// *dloss. A block for each row.
KERNEL crossEntropy(A* logits, const int* targets, float* losses, const float* counted, const float* dloss, int V,
                    float cap, int gradient) {
  __shared__ float scratch[32];
  A* row = logits + (i64)blockIdx.x * V;
  int target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0 && losses != 0) losses[blockIdx.x] = 0.0f;
    if (gradient)
      for (int i = threadIdx.x; i < V; i += blockDim.x) store(row, i, 0.0f);
    return;
  }
  float top = minusInfinity(), sum = 0.0f, chosen = 0.0f;
  overRow(row, V, false, [&](float* x, int, int count) {
    for (int j = 0; j < count; j++) top = fmaxf(top, cap > 0.0f ? cap * tanhf(x[j] / cap) : x[j]);
  });
  top = blockMax(top, scratch);
  overRow(row, V, false, [&](float* x, int first, int count) {
    for (int j = 0; j < count; j++) {
      float logit = cap > 0.0f ? cap * tanhf(x[j] / cap) : x[j];
      sum += expf(logit - top);
      if (first + j == target) chosen = logit;
    }
  });
  sum = blockSum(sum, scratch);
  chosen = blockSum(chosen, scratch);
  if (threadIdx.x == 0 && losses != 0) losses[blockIdx.x] = top + logf(sum) - chosen;
  if (!gradient) return;
  float factor = *dloss / *counted;
  overRow(row, V, true, [&](float* x, int first, int count) {
    for (int j = 0; j < count; j++) {
      float t = cap > 0.0f ? tanhf(x[j] / cap) : 0.0f;
      float p = expf((cap > 0.0f ? cap * t : x[j]) - top) / sum - (first + j == target ? 1.0f : 0.0f);
      x[j] = p * (1.0f - t * t) * factor;
    }
  });
}

#define LOG2_E 1.4426950408889634f

// `crossEntropy` with gradient and without a cap for rows of a multiple of 8 of up to EIGHTS * 8192 logits, which are
// read once: each thread holds its part of them.
template <int EIGHTS>
DEVICE void crossEntropyHeldIn(bf16* logits, const int* targets, float* losses, const float* counted,
                               const float* dloss, int V) {
  __shared__ float scratch[32];
  bf16* row = logits + (i64)blockIdx.x * V;
  int target = targets[blockIdx.x];
  uint4 held[EIGHTS];
  float top = minusInfinity(), sum = 0.0f, x[8];
#pragma unroll
  for (int c = 0; c < EIGHTS; c++) {
    int i = (c * blockDim.x + threadIdx.x) * 8;
    if (i < V) held[c] = *(const uint4*)(row + i);
  }
#pragma unroll
  for (int c = 0; c < EIGHTS; c++) {
    int i = (c * blockDim.x + threadIdx.x) * 8;
    if (i >= V) continue;
    load8((const bf16*)&held[c], 0, x);
    for (int j = 0; j < 8; j++) top = fmaxf(top, x[j]);
  }
  top = blockMax(top, scratch);
#pragma unroll
  for (int c = 0; c < EIGHTS; c++) {
    int i = (c * blockDim.x + threadIdx.x) * 8;
    if (i >= V) continue;
    load8((const bf16*)&held[c], 0, x);
    for (int j = 0; j < 8; j++) sum += power2((x[j] - top) * LOG2_E);
  }
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0 && losses != 0) losses[blockIdx.x] = target < 0 ? 0.0f : top + logf(sum) - load(row, target);
  // The target's logit is read before its place is written.
  __syncthreads();
  float factor = target < 0 ? 0.0f : *dloss / *counted, by = factor / sum;
#pragma unroll
  for (int c = 0; c < EIGHTS; c++) {
    int i = (c * blockDim.x + threadIdx.x) * 8;
    if (i >= V) continue;
    load8((const bf16*)&held[c], 0, x);
    for (int j = 0; j < 8; j++) {
      float p = power2((x[j] - top) * LOG2_E) * by;
      x[j] = i + j == target ? p - factor : p;
    }
    store8(row, i, x);
  }
}

#define HELD_LOGITS \
  bf16 *logits, const int *targets, float *losses, const float *counted, const float *dloss, int V
#define HELD_VALUES logits, targets, losses, counted, dloss, V

KERNEL crossEntropyHeld1(HELD_LOGITS) { crossEntropyHeldIn<1>(HELD_VALUES); }
KERNEL crossEntropyHeld2(HELD_LOGITS) { crossEntropyHeldIn<2>(HELD_VALUES); }
KERNEL crossEntropyHeld4(HELD_LOGITS) { crossEntropyHeldIn<4>(HELD_VALUES); }
KERNEL crossEntropyHeld8(HELD_LOGITS) { crossEntropyHeldIn<8>(HELD_VALUES); }

// scores [rows, 2] of logits [rows, V], to which a bias [V] is added first (null: none) and whose size a cap limits as in
// `crossEntropy`: log softmax(logits)[target], and 1 where the target's logit is the first of the largest ones, else 0.
// A block for each row.
KERNEL headScores(const float* logits, const int* targets, const float* bias, float* scores, int V, float cap) {
  __shared__ float scratch[32];
  const float* row = logits + (i64)blockIdx.x * V;
  int target = targets[blockIdx.x];
  auto logitAt = [&](int i) {
    float x = bias == 0 ? row[i] : row[i] + bias[i];
    return cap > 0.0f ? cap * tanhf(x / cap) : x;
  };
  float own = logitAt(target), top = minusInfinity(), before = 0.0f, sum = 0.0f;
  for (int i = threadIdx.x; i < V; i += blockDim.x) {
    float x = logitAt(i);
    top = fmaxf(top, x);
    // What is not a number is never the likeliest.
    if (!(x < own || (x == own && i >= target))) before = 1.0f;
  }
  top = blockMax(top, scratch);
  before = blockMax(before, scratch);
  for (int i = threadIdx.x; i < V; i += blockDim.x) sum += expf(logitAt(i) - top);
  sum = blockSum(sum, scratch);
  if (threadIdx.x > 0) return;
  scores[2 * blockIdx.x] = own - top - logf(sum);
  scores[2 * blockIdx.x + 1] = 1.0f - before;
}

// loss = sum of losses [n] / counted. One block.
KERNEL meanLoss(const float* losses, const float* counted, float* loss, int n) {
  __shared__ double scratch[32];
  double sum = 0.0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += losses[i];
  sum = blockSumDouble(sum, scratch);
  if (threadIdx.x == 0) *loss = (float)(sum / *counted);
}
