// Sums over axes; softmax and log-sum-exp along the last axis.

// x [outer, size, inner] -> out [outer, slices, inner]: slice s sums the elements from s * run on. Grid: outer, slices,
// inner in groups of 32. Each of 8 warps takes every eighth element of its slice.
KERNEL sumSlices(const float* x, float* out, int size, int inner, int run) {
  __shared__ float parts[8][32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, slices = gridDim.y;
  int column = blockIdx.z * 32 + lane, first = blockIdx.y * run, end = min(size, first + run);
  const float* from = x + (i64)blockIdx.x * size * inner;
  float sum = 0.0f;
  if (column < inner)
    for (int i = first + warp; i < end; i += 8) sum += from[(i64)i * inner + column];
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= inner) return;
  for (int w = 1; w < 8; w++) sum += parts[w][lane];
  out[((i64)blockIdx.x * slices + blockIdx.y) * inner + column] = sum;
}

// For each of many arrays x [size, inner], its sum over `size`. Grid: inner in groups of 32, arrays.
KERNEL sumRowsMany(const float* const* x, float* const* out, int size, int inner) {
  __shared__ float parts[8][32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * 32 + lane;
  const float* from = x[blockIdx.y];
  float sum = 0.0f;
  if (column < inner)
    for (int i = warp; i < size; i += 8) sum += from[(i64)i * inner + column];
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= inner) return;
  for (int w = 1; w < 8; w++) sum += parts[w][lane];
  out[blockIdx.y][column] = sum;
}

// x [rows, size] -> out [rows]; a block for each row.
KERNEL sumRows(const float* x, float* out, i64 size) {
  __shared__ float scratch[32];
  const float* row = x + blockIdx.x * size;
  float sum = 0.0f;
  for (i64 i = threadIdx.x; i < size; i += blockDim.x) sum += row[i];
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// x [rows, size] -> softmax of each row; a warp for each row.
KERNEL softmax(const float* x, float* out, int rows, int size) {
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  const float* from = x + (i64)row * size;
  float* to = out + (i64)row * size;
  float top = minusInfinity(), sum = 0.0f;
  for (int i = lane; i < size; i += 32) top = fmaxf(top, from[i]);
  top = warpMax(top);
  for (int i = lane; i < size; i += 32) sum += expf(from[i] - top);
  sum = warpSum(sum);
  for (int i = lane; i < size; i += 32) to[i] = expf(from[i] - top) / sum;
}

// y * (dy - sum(y dy)) in each row.
KERNEL softmaxGrad(const float* y, const float* dy, float* dx, int rows, int size) {
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  i64 at = (i64)row * size;
  float dot = 0.0f;
  for (int i = lane; i < size; i += 32) dot += y[at + i] * dy[at + i];
  dot = warpSum(dot);
  for (int i = lane; i < size; i += 32) dx[at + i] = y[at + i] * (dy[at + i] - dot);
}

KERNEL logSumExp(const float* x, float* out, int rows, int size) {
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  const float* from = x + (i64)row * size;
  float top = minusInfinity(), sum = 0.0f;
  for (int i = lane; i < size; i += 32) top = fmaxf(top, from[i]);
  top = warpMax(top);
  for (int i = lane; i < size; i += 32) sum += expf(from[i] - top);
  sum = warpSum(sum);
  if (lane == 0) out[row] = top + logf(sum);
}
