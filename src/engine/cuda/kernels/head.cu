// Cross entropy over the vocabulary, for runs of tokens whose logits [rows, V] exist only for a moment.

// counted = how many targets are not negative, at least 1. One block.
KERNEL countTargets(const int* targets, float* counted, int n) {
  __shared__ float scratch[32];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += targets[i] >= 0 ? 1.0f : 0.0f;
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) *counted = fmaxf(sum, 1.0f);
}

// Logits of each row become cap * tanh(logit / cap) (cap 0: they stay). losses [rows] = -log softmax(logits)[target], 0
// where the target is negative. With `gradient`, logits become their gradients, for a mean over `counted` targets times
// *dloss. A block for each row.
KERNEL crossEntropy(A* logits, const int* targets, float* losses, const float* counted, const float* dloss, int V, float cap,
                    int gradient) {
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
  for (int i = threadIdx.x; i < V; i += blockDim.x) {
    float x = load(row, i);
    top = fmaxf(top, cap > 0.0f ? cap * tanhf(x / cap) : x);
  }
  top = blockMax(top, scratch);
  for (int i = threadIdx.x; i < V; i += blockDim.x) {
    float x = load(row, i);
    x = cap > 0.0f ? cap * tanhf(x / cap) : x;
    sum += expf(x - top);
    if (i == target) chosen = x;
  }
  sum = blockSum(sum, scratch);
  chosen = blockSum(chosen, scratch);
  if (threadIdx.x == 0 && losses != 0) losses[blockIdx.x] = top + logf(sum) - chosen;
  if (!gradient) return;
  float factor = *dloss / *counted;
  for (int i = threadIdx.x; i < V; i += blockDim.x) {
    float x = load(row, i), t = cap > 0.0f ? tanhf(x / cap) : 0.0f;
    float p = expf((cap > 0.0f ? cap * t : x) - top) / sum - (i == target ? 1.0f : 0.0f);
    store(row, i, p * (1.0f - t * t) * factor);
  }
}

// loss = sum of losses [n] / counted. One block.
KERNEL meanLoss(const float* losses, const float* counted, float* loss, int n) {
  __shared__ double scratch[32];
  double sum = 0.0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += losses[i];
  sum = blockSumDouble(sum, scratch);
  if (threadIdx.x == 0) *loss = (float)(sum / *counted);
}
