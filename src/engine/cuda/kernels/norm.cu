// Norms over the last axis, x [rows, H], a block for each row; gradients of weights in two passes (see `sumSlices`).

// x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, equation 4).
KERNEL rmsNorm(const A* x, const float* weight, A* out, int H, float eps) {
  __shared__ float scratch[32];
  i64 at = (i64)blockIdx.x * H;
  float square = 0.0f;
  for (int i = threadIdx.x; i < H; i += blockDim.x) {
    float value = load(x, at + i);
    square += value * value;
  }
  float r = 1.0f / sqrtf(blockSum(square, scratch) / H + eps);
  for (int i = threadIdx.x; i < H; i += blockDim.x) store(out, at + i, load(x, at + i) * r * weight[i]);
}

// Block b takes rows b, b + gridDim.x, ... and leaves their share of the weight's gradient in parts [gridDim.x, H]
// (not where parts is null). `kept` in shared memory sums it: each thread owns every blockDim.x-th column. `rest` is
// added to dx where it is not null, and may be its memory.
KERNEL rmsNormGrad(const A* x, const float* weight, const A* dy, const A* rest, A* dx, float* parts, int rows, int H,
                   float eps) {
  extern __shared__ float kept[];
  __shared__ float scratch[32];
  for (int i = threadIdx.x; i < H; i += blockDim.x) kept[i] = 0.0f;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    i64 at = (i64)row * H;
    float square = 0.0f, dot = 0.0f;
    for (int i = threadIdx.x; i < H; i += blockDim.x) {
      float value = load(x, at + i);
      square += value * value;
      dot += load(dy, at + i) * weight[i] * value;
    }
    float r = 1.0f / sqrtf(blockSum(square, scratch) / H + eps);
    float mean = blockSum(dot, scratch) * r / H;
    for (int i = threadIdx.x; i < H; i += blockDim.x) {
      float value = load(x, at + i), d = load(dy, at + i);
      kept[i] += d * value * r;
      store(dx, at + i, r * (d * weight[i] - value * r * mean) + (rest == 0 ? 0.0f : load(rest, at + i)));
    }
  }
  if (parts == 0) return;
  for (int i = threadIdx.x; i < H; i += blockDim.x) parts[(i64)blockIdx.x * H + i] = kept[i];
}

// `rmsNorm` for rows of a multiple of 8 elements; a warp for each row.
KERNEL rmsNormRows(const A* x, const float* weight, A* out, int rows, int H, float eps) {
  takeTurn();
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  i64 at = (i64)row * H;
  float square = 0.0f, v[8], w[8];
  for (int i = lane * 8; i < H; i += 256) {
    load8(x, at + i, v);
    for (int j = 0; j < 8; j++) square += v[j] * v[j];
  }
  float r = 1.0f / sqrtf(warpSum(square) / H + eps);
  for (int i = lane * 8; i < H; i += 256) {
    load8(x, at + i, v);
    load8(weight, i, w);
    for (int j = 0; j < 8; j++) v[j] *= r * w[j];
    store8(out, at + i, v);
  }
}

// `rmsNormGrad` for rows of a multiple of 8 of up to EIGHTS * 256 elements, plus `rest` [rows, H] where that is not null:
// the gradient that reaches x beside the norm. Each warp takes every so many'th row, holds it in registers, and keeps
// the weight's gradient of its columns there, too; the warps of a block add theirs up at the end, in order. Shared: H
// floats.
// Eight neighbours as they lie in memory, to be held in few registers.
template <class T>
struct Eight;
template <>
struct Eight<float> {
  float4 a, b;
};
template <>
struct Eight<bf16> {
  uint4 a;
};

template <int EIGHTS>
DEVICE void rmsNormGradHeld(const A* x, const float* weight, const A* dy, const A* rest, A* dx, float* parts, int rows,
                            int H, float eps) {
  extern __shared__ float total[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float kept[EIGHTS][8] = {};
  for (int row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
    i64 at = (i64)row * H;
    float square = 0.0f, dot = 0.0f, v[8], d[8], w[8];
    Eight<A> heldX[EIGHTS], heldD[EIGHTS];
#pragma unroll
    for (int c = 0; c < EIGHTS; c++) {
      int i = (c * 32 + lane) * 8;
      if (i >= H) continue;
      heldX[c] = *(const Eight<A>*)(x + at + i);
      heldD[c] = *(const Eight<A>*)(dy + at + i);
    }
#pragma unroll
    for (int c = 0; c < EIGHTS; c++) {
      int i = (c * 32 + lane) * 8;
      if (i >= H) continue;
      load8((const A*)&heldX[c], 0, v);
      load8((const A*)&heldD[c], 0, d);
      load8(weight, i, w);
      for (int j = 0; j < 8; j++) {
        square += v[j] * v[j];
        dot += d[j] * w[j] * v[j];
      }
    }
    float r = 1.0f / sqrtf(warpSum(square) / H + eps), mean = warpSum(dot) * r / H;
#pragma unroll
    for (int c = 0; c < EIGHTS; c++) {
      int i = (c * 32 + lane) * 8;
      if (i >= H) continue;
      load8((const A*)&heldX[c], 0, v);
      load8((const A*)&heldD[c], 0, d);
      load8(weight, i, w);
      for (int j = 0; j < 8; j++) {
        kept[c][j] += d[j] * v[j] * r;
        v[j] = r * (d[j] * w[j] - v[j] * r * mean);
      }
      if (rest != 0) {
        load8(rest, at + i, w);
        for (int j = 0; j < 8; j++) v[j] += w[j];
      }
      store8(dx, at + i, v);
    }
  }
  for (int turn = 0; turn < warps; turn++) {
    if (turn == warp)
#pragma unroll
      for (int c = 0; c < EIGHTS; c++) {
        int i = (c * 32 + lane) * 8;
        if (i < H)
          for (int j = 0; j < 8; j++) total[i + j] = (turn == 0 ? 0.0f : total[i + j]) + kept[c][j];
      }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < H; i += blockDim.x) parts[(i64)blockIdx.x * H + i] = total[i];
}

#define NORM_GRAD                                                                                              \
  const A *x, const float *weight, const A *dy, const A *rest, A *dx, float *parts, int rows, int H, float eps
#define NORM_GRAD_VALUES x, weight, dy, rest, dx, parts, rows, H, eps

KERNEL __launch_bounds__(256, 4) rmsNormGradRows1(NORM_GRAD) { rmsNormGradHeld<1>(NORM_GRAD_VALUES); }
KERNEL __launch_bounds__(256, 3) rmsNormGradRows2(NORM_GRAD) { rmsNormGradHeld<2>(NORM_GRAD_VALUES); }
KERNEL __launch_bounds__(256, 3) rmsNormGradRows3(NORM_GRAD) { rmsNormGradHeld<3>(NORM_GRAD_VALUES); }
KERNEL __launch_bounds__(256, 2) rmsNormGradRows4(NORM_GRAD) { rmsNormGradHeld<4>(NORM_GRAD_VALUES); }
KERNEL __launch_bounds__(256, 1) rmsNormGradRows6(NORM_GRAD) { rmsNormGradHeld<6>(NORM_GRAD_VALUES); }
KERNEL __launch_bounds__(256, 1) rmsNormGradRows8(NORM_GRAD) { rmsNormGradHeld<8>(NORM_GRAD_VALUES); }

// The mean of a row of x, and what rounding has left out of it: rows of nearly equal numbers would lose their
// differences.
DEVICE float meanOf(const A* x, i64 at, int H, float* scratch, float& rest) {
  float sum = 0.0f, left = 0.0f;
  for (int i = threadIdx.x; i < H; i += blockDim.x) sum += load(x, at + i);
  float mean = blockSum(sum, scratch) / H;
  for (int i = threadIdx.x; i < H; i += blockDim.x) left += load(x, at + i) - mean;
  rest = blockSum(left, scratch) / H;
  return mean;
}

// (x - mean) / sqrt(var + eps) (Ba et al. 2016), without weight and bias.
KERNEL layerNorm(const A* x, A* out, int H, float eps) {
  __shared__ float scratch[32];
  i64 at = (i64)blockIdx.x * H;
  float square = 0.0f, rest, mean = meanOf(x, at, H, scratch, rest);
  for (int i = threadIdx.x; i < H; i += blockDim.x) {
    float d = load(x, at + i) - mean - rest;
    square += d * d;
  }
  float r = 1.0f / sqrtf(blockSum(square, scratch) / H + eps);
  for (int i = threadIdx.x; i < H; i += blockDim.x) store(out, at + i, (load(x, at + i) - mean - rest) * r);
}

KERNEL layerNormGrad(const A* x, const A* dy, A* dx, int H, float eps) {
  __shared__ float scratch[32];
  i64 at = (i64)blockIdx.x * H;
  float square = 0.0f, total = 0.0f, dot = 0.0f, rest, mean = meanOf(x, at, H, scratch, rest);
  for (int i = threadIdx.x; i < H; i += blockDim.x) {
    float d = load(x, at + i) - mean - rest;
    square += d * d;
    total += load(dy, at + i);
    dot += load(dy, at + i) * d;
  }
  float r = 1.0f / sqrtf(blockSum(square, scratch) / H + eps);
  total = blockSum(total, scratch) / H;
  dot = blockSum(dot, scratch) * r / H;
  for (int i = threadIdx.x; i < H; i += blockDim.x)
    store(dx, at + i, r * (load(dy, at + i) - total - (load(x, at + i) - mean - rest) * r * dot));
}
