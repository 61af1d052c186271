// One update of all trained parameters: the gradients' norm, whether the update is applied, AdamW, Muon, averages.
// Parameters are cut into chunks, a block for each; everything that changes from step to step is read from memory, so
// that a captured graph serves every step.

// Places in the buffers of weights, gradients, first and second moments and averages, in elements; -1: there is none.
struct Chunk {
  i64 weight, gradient, moment1, moment2, average;
  int count, parameter;
};

// Of a step, see `settingsOf` in step-settings.ts.
struct Settings {
  double mean, clipNorm, beta1, beta2, correction1, correction2, eps, averageDecay, lossLimit, normLimit, momentum,
      nesterov, batches;
};

// What `judge` found; `factor` is what gradients are multiplied by.
struct Verdict {
  double applied, spike, norm, factor;
};

// Of a parameter: its learning rate, and 1 - rate * weight decay.
struct Rates {
  float rate, keep;
};

// Up to eight neighbours from a multiple of 8 on, all at once where there are eight.
DEVICE void loadSome(const float* p, int i, float* x, int count) {
  if (count == 8) return load8(p, i, x);
  for (int j = 0; j < count; j++) x[j] = p[i + j];
}
DEVICE void storeSome(float* p, int i, const float* x, int count) {
  if (count == 8) return store8(p, i, x);
  for (int j = 0; j < count; j++) p[i + j] = x[j];
}
DEVICE void storeSome(bf16* p, int i, const float* x, int count) {
  if (count == 8) return store8(p, i, x);
  for (int j = 0; j < count; j++) store(p, i + j, x[j]);
}

// parts [chunks]: sums of squares.
KERNEL chunkSquares(const Chunk* chunks, const float* gradients, float* parts) {
  __shared__ float scratch[32];
  Chunk c = chunks[blockIdx.x];
  float sum = 0.0f, g[8];
  for (int i = threadIdx.x * 8; i < c.count; i += blockDim.x * 8) {
    int count = min(8, c.count - i);
    loadSome(gradients + c.gradient, i, g, count);
    for (int j = 0; j < count; j++) sum += g[j] * g[j];
  }
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// From the squares of all chunks and the losses of the micro-batches (losses[b * stride]) to the verdict. One block.
KERNEL judge(const float* parts, int chunks, const float* losses, int stride, const Settings* settings,
             Verdict* verdict) {
  __shared__ double scratch[32];
  double sum = 0.0;
  for (int i = threadIdx.x; i < chunks; i += blockDim.x) sum += parts[i];
  sum = blockSumDouble(sum, scratch);
  if (threadIdx.x > 0) return;
  double norm = sqrt(sum) * settings->mean, loss = 0.0;
  for (int b = 0; b < (int)settings->batches; b++) loss += losses[b * stride] / settings->batches;
  bool finite = isfinite(norm) && isfinite(loss);
  verdict->spike = !finite ? 0.0 : loss > settings->lossLimit ? 1.0 : norm > settings->normLimit ? 2.0 : 0.0;
  verdict->applied = finite && verdict->spike == 0.0 ? 1.0 : 0.0;
  verdict->norm = norm;
  verdict->factor = settings->mean * fmin(1.0, settings->clipNorm / (norm + 1e-6));
}

// AdamW with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), then the running average of the weights, and
// the weights as bfloat16 where `halves` is not null: those of weights[i] are halves[i].
KERNEL adamw(const Chunk* chunks, const Rates* rates, const Settings* settings, const Verdict* verdict, float* weights,
             const float* gradients, float* moments1, float* moments2, float* averages, bf16* halves) {
  if (verdict->applied == 0.0) return;
  Chunk c = chunks[blockIdx.x];
  Rates r = rates[c.parameter];
  float factor = (float)verdict->factor, beta1 = (float)settings->beta1, beta2 = (float)settings->beta2;
  float rest1 = (float)(1.0 - settings->beta1), rest2 = (float)(1.0 - settings->beta2);
  float step = (float)(r.rate * settings->correction1), root = (float)settings->correction2, eps = (float)settings->eps;
  float decay = (float)settings->averageDecay, fresh = (float)(1.0 - settings->averageDecay);
  for (int i = threadIdx.x * 8; i < c.count; i += blockDim.x * 8) {
    int count = min(8, c.count - i);
    float g[8], m[8], v[8], w[8];
    loadSome(gradients + c.gradient, i, g, count);
    loadSome(moments1 + c.moment1, i, m, count);
    loadSome(moments2 + c.moment2, i, v, count);
    loadSome(weights + c.weight, i, w, count);
    for (int j = 0; j < count; j++) {
      g[j] *= factor;
      m[j] = beta1 * m[j] + rest1 * g[j];
      v[j] = beta2 * v[j] + rest2 * g[j] * g[j];
      w[j] = w[j] * r.keep - step * m[j] / (sqrtf(v[j]) * root + eps);
    }
    storeSome(moments1 + c.moment1, i, m, count);
    storeSome(moments2 + c.moment2, i, v, count);
    storeSome(weights + c.weight, i, w, count);
    if (halves != 0) storeSome(halves + c.weight, i, w, count);
    if (decay < 0.0f) continue;
    loadSome(averages + c.average, i, g, count);
    for (int j = 0; j < count; j++) g[j] = decay * g[j] + fresh * w[j];
    storeSome(averages + c.average, i, g, count);
  }
}

// Muon's direction before its iteration (Jordan 2024): m = momentum * m + (1 - momentum) * g, and u the same once more
// with Nesterov, or m. `parts` get the squares of each block's share of u [n].
KERNEL muonMomentum(const float* gradient, float* moment, float* u, float* parts, const Settings* settings,
                    const Verdict* verdict, i64 n) {
  __shared__ float scratch[32];
  float factor = (float)verdict->factor, momentum = (float)settings->momentum, rest = (float)(1.0 - settings->momentum);
  bool applied = verdict->applied != 0.0, nesterov = settings->nesterov != 0.0;
  float sum = 0.0f;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
    float g = applied ? gradient[i] * factor : 0.0f, m = momentum * moment[i] + rest * g;
    if (applied) moment[i] = m;
    float value = nesterov ? rest * g + momentum * m : m;
    u[i] = value;
    sum += value * value;
  }
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// u /= max(|u|, eps). `parts` [count] are its squares.
KERNEL muonNormalise(float* u, const float* parts, int count, i64 n, float eps) {
  __shared__ double scratch[32];
  double sum = 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
  float by = 1.0f / fmaxf((float)sqrt(blockSumDouble(sum, scratch)), eps);
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) u[i] *= by;
}

// `average` is null where none is kept, `half` where no bfloat16 is.
KERNEL muonApply(float* weight, const float* direction, float* average, bf16* half, const Rates* rates,
                 const Settings* settings, const Verdict* verdict, int parameter, float scale, i64 n) {
  if (verdict->applied == 0.0) return;
  Rates r = rates[parameter];
  float decay = (float)settings->averageDecay, fresh = (float)(1.0 - settings->averageDecay);
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
    float w = weight[i] * r.keep - r.rate * scale * direction[i];
    weight[i] = w;
    if (half != 0) store(half, i, w);
    if (average != 0 && decay >= 0.0f) average[i] = decay * average[i] + fresh * w;
  }
}
