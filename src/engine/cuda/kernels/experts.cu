// Experts: rows of tokens sorted by expert, products of each expert's rows with its own weights, and back.
// N tokens, K experts for each, R = N * K routed rows, E experts; `counts` [E] says how many rows each expert has. Rows
// behind those belong to nobody (choices that a capacity dropped).

// Rows of a block of kernels where each row has a warp.
#define ROW_WARPS 8

// x [N, H] -> [R, H]: row of the slot at each sorted place. A warp for each routed row; rows of a multiple of 8 elements
// are moved in eights, here and below.
KERNEL dispatch(const A* x, const int* order, A* out, int R, int H, int K) {
  int row = blockIdx.x * ROW_WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= R) return;
  const A* from = x + (i64)(order[row] / K) * H;
  A* to = out + (i64)row * H;
  if (H % 8 != 0) {
    for (int i = lane; i < H; i += 32) to[i] = from[i];
    return;
  }
  // Four loads are on their way at a time.
  const uint4* source = (const uint4*)from;
  uint4 *target = (uint4*)to, v[4];
  int n = H * (int)sizeof(A) / 16;
  for (int i0 = lane; i0 < n; i0 += 128) {
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (i0 + 32 * j < n) v[j] = source[i0 + 32 * j];
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (i0 + 32 * j < n) target[i0 + 32 * j] = v[j];
  }
}

// y [R, H] -> [N, H]: sums of each token's rows, best choice first, times the weights of its slots where `weights` is not
// null, and `addend` [N, H] where that is not null, which may be `out`. A block for each token.
KERNEL combine(const A* y, const float* weights, const int* inverse, const A* addend, A* out, int H, int K) {
  takeTurn();
  float sums[8], v[8];
  i64 own = (i64)blockIdx.x * K, at = (i64)blockIdx.x * H;
  if (H % 8 == 0) {
    for (int i = threadIdx.x * 8; i < H; i += blockDim.x * 8) {
      for (int j = 0; j < 8; j++) sums[j] = 0.0f;
      for (int k = 0; k < K; k++) {
        float weight = weights == 0 ? 1.0f : weights[own + k];
        load8(y, (i64)inverse[own + k] * H + i, v);
        for (int j = 0; j < 8; j++) sums[j] += weight * v[j];
      }
      if (addend != 0) {
        load8(addend, at + i, v);
        for (int j = 0; j < 8; j++) sums[j] += v[j];
      }
      store8(out, at + i, sums);
    }
    return;
  }
  for (int i = threadIdx.x; i < H; i += blockDim.x) {
    float sum = 0.0f;
    for (int k = 0; k < K; k++)
      sum += (weights == 0 ? 1.0f : weights[own + k]) * load(y, (i64)inverse[own + k] * H + i);
    if (addend != 0) sum += load(addend, at + i);
    store(out, at + i, sum);
  }
}

// y [R, H] times the weight of each row's slot. A block for each row.
KERNEL scaleRows(const A* y, const float* weights, const int* order, A* out, int H) {
  float weight = weights[order[blockIdx.x]];
  i64 at = (i64)blockIdx.x * H;
  float v[8];
  if (H % 8 == 0)
    for (int i = threadIdx.x * 8; i < H; i += blockDim.x * 8) {
      load8(y, at + i, v);
      for (int j = 0; j < 8; j++) v[j] *= weight;
      store8(out, at + i, v);
    }
  else
    for (int i = threadIdx.x; i < H; i += blockDim.x) store(out, at + i, load(y, at + i) * weight);
}

KERNEL scaleRowsGrad(const A* y, const float* weights, const int* order, const A* dout, A* dy, float* dweights, int H) {
  __shared__ float scratch[32];
  int slot = order[blockIdx.x];
  float weight = weights[slot], dot = 0.0f;
  i64 at = (i64)blockIdx.x * H;
  float v[8], d[8];
  if (H % 8 == 0)
    for (int i = threadIdx.x * 8; i < H; i += blockDim.x * 8) {
      load8(y, at + i, v);
      load8(dout, at + i, d);
      for (int j = 0; j < 8; j++) {
        dot += d[j] * v[j];
        d[j] *= weight;
      }
      store8(dy, at + i, d);
    }
  else
    for (int i = threadIdx.x; i < H; i += blockDim.x) {
      float g = load(dout, at + i);
      dot += g * load(y, at + i);
      store(dy, at + i, g * weight);
    }
  dot = blockSum(dot, scratch);
  if (threadIdx.x == 0) dweights[slot] = dot;
}

// scaleRowsGrad of what `dispatch` makes of x [N, H]: dy [R, H] and the gradients of weights. A warp for each row.
KERNEL dispatchScaled(const A* y, const A* x, const float* weights, const int* order, A* dy, float* dweights, int R,
                      int H, int K) {
  int row = blockIdx.x * ROW_WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= R) return;
  int slot = order[row];
  float weight = weights[slot], dot = 0.0f, v[8], d[8];
  i64 at = (i64)row * H, from = (i64)(slot / K) * H;
  if (H % 8 == 0)
    for (int i = lane * 8; i < H; i += 256) {
      load8(y, at + i, v);
      load8(x, from + i, d);
      for (int j = 0; j < 8; j++) {
        dot += d[j] * v[j];
        d[j] *= weight;
      }
      store8(dy, at + i, d);
    }
  else
    for (int i = lane; i < H; i += 32) {
      float g = load(x, from + i);
      dot += g * load(y, at + i);
      store(dy, at + i, g * weight);
    }
  dot = warpSum(dot);
  if (lane == 0) dweights[slot] = dot;
}

// Gated units of rows times the weight of each row's slot. A warp for each row.
KERNEL scaledGate(const A* gate, const A* up, const float* weights, const int* order, A* out, int R, int H) {
  int row = blockIdx.x * ROW_WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= R) return;
  float weight = weights[order[row]], g[8], u[8];
  i64 at = (i64)row * H;
  if (H % 8 == 0)
    for (int i = lane * 8; i < H; i += 256) {
      load8(gate, at + i, g);
      load8(up, at + i, u);
      for (int j = 0; j < 8; j++) g[j] = g[j] * sigmoid(g[j]) * u[j] * weight;
      store8(out, at + i, g);
    }
  else
    for (int i = lane; i < H; i += 32) {
      float x = load(gate, at + i);
      store(out, at + i, x * sigmoid(x) * load(up, at + i) * weight);
    }
}

// Gradients of gate and up become x and y, that of the result being d times the weight; returns d times the result.
DEVICE float scaledSlopes(float& x, float& y, float d, float weight) {
  float s = sigmoid(x), unit = x * s, result = unit * y;
  float dgate = d * weight * y * s * (1.0f + x * (1.0f - s));
  y = d * weight * unit;
  x = dgate;
  return d * result;
}

// Gradients of gates, ups and weights of `scaledGate`, d [R, H] being that of its result. A warp for each row.
KERNEL scaledGateGrad(const A* gate, const A* up, const A* d, const float* weights, const int* order, A* dgate, A* dup,
                      float* dweights, int R, int H) {
  int row = blockIdx.x * ROW_WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= R) return;
  int slot = order[row];
  float weight = weights[slot], dot = 0.0f, g[8], u[8], v[8];
  i64 at = (i64)row * H;
  if (H % 8 == 0)
    for (int i = lane * 8; i < H; i += 256) {
      load8(gate, at + i, g);
      load8(up, at + i, u);
      load8(d, at + i, v);
      for (int j = 0; j < 8; j++) dot += scaledSlopes(g[j], u[j], v[j], weight);
      store8(dgate, at + i, g);
      store8(dup, at + i, u);
    }
  else
    for (int i = lane; i < H; i += 32) {
      float x = load(gate, at + i), y = load(up, at + i);
      dot += scaledSlopes(x, y, load(d, at + i), weight);
      store(dgate, at + i, x);
      store(dup, at + i, y);
    }
  dot = warpSum(dot);
  if (lane == 0) dweights[slot] = dot;
}

// Tiles of 64 by 64, steps of 16; 256 threads, 16 results each.
#define SIDE 64
#define STEP 16

// Where the tile'th tile of rows lies: rows [first, end) of `expert`, or of nobody (expert = E).
DEVICE void findRows(const int* counts, int E, int R, int tile, int& expert, int& first, int& end) {
  int start = 0;
  for (expert = 0; expert < E; expert++) {
    int count = counts[expert], tiles = (count + SIDE - 1) / SIDE;
    if (tile < tiles) break;
    tile -= tiles;
    start += count;
  }
  first = start + tile * SIDE;
  end = min(first + SIDE, expert < E ? start + counts[expert] : R);
}

DEVICE void multiply(const float (*left)[SIDE + 4], const float (*right)[SIDE + 4], float (*sums)[4], int row,
                     int column) {
  for (int k = 0; k < STEP; k++)
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) sums[i][j] += left[k][row + i] * right[k][column + j];
}

// x [R, a] -> out [R, b]: rows of expert e times weights[e], [a, b], or [b, a] with `transposed`; nobody's rows become
// zeros. Grid: tiles of b, tiles of rows (R / 64 + E + 1 at most).
KERNEL groupedMatmul(const A* x, const int* counts, const A* const* weights, A* out, int R, int E, int a, int b,
                     int transposed) {
  __shared__ float left[STEP][SIDE + 4], right[STEP][SIDE + 4];
  int expert, first, end;
  findRows(counts, E, R, blockIdx.y, expert, first, end);
  if (first >= end) return;
  int column0 = blockIdx.x * SIDE, t = threadIdx.x, row = (t / 16) * 4, column = (t % 16) * 4;
  float sums[4][4] = {};
  if (expert < E) {
    const A* w = weights[expert];
    for (int k0 = 0; k0 < a; k0 += STEP) {
      for (int i = t; i < SIDE * STEP; i += 256) {
        int r = i / STEP, k = i % STEP;
        left[k][r] = first + r < end && k0 + k < a ? load(x, (i64)(first + r) * a + k0 + k) : 0.0f;
      }
      for (int i = t; i < SIDE * STEP; i += 256) {
        int c = transposed ? i / STEP : i % SIDE, k = transposed ? i % STEP : i / SIDE;
        bool inside = column0 + c < b && k0 + k < a;
        i64 at = transposed ? (i64)(column0 + c) * a + k0 + k : (i64)(k0 + k) * b + column0 + c;
        right[k][c] = inside ? load(w, at) : 0.0f;
      }
      __syncthreads();
      multiply(left, right, sums, row, column);
      __syncthreads();
    }
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      if (first + row + i < end && column0 + column + j < b)
        store(out, (i64)(first + row + i) * b + column0 + column + j, sums[i][j]);
}

// outs[e] [b, a] = dy_e^T x_e for the rows of each expert, zeros for one without rows. Grid: tiles of a, tiles of b, E.
KERNEL groupedMatmulGradW(const A* x, const A* dy, const int* counts, float* const* outs, int a, int b) {
  __shared__ float left[STEP][SIDE + 4], right[STEP][SIDE + 4];
  int expert = blockIdx.z, first = 0;
  for (int e = 0; e < expert; e++) first += counts[e];
  int end = first + counts[expert];
  int row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE;
  int t = threadIdx.x, row = (t / 16) * 4, column = (t % 16) * 4;
  float sums[4][4] = {};
  for (int r0 = first; r0 < end; r0 += STEP) {
    for (int i = t; i < SIDE * STEP; i += 256) {
      int k = i / SIDE, c = i % SIDE;
      bool live = r0 + k < end;
      left[k][c] = live && row0 + c < b ? load(dy, (i64)(r0 + k) * b + row0 + c) : 0.0f;
      right[k][c] = live && column0 + c < a ? load(x, (i64)(r0 + k) * a + column0 + c) : 0.0f;
    }
    __syncthreads();
    multiply(left, right, sums, row, column);
    __syncthreads();
  }
  float* out = outs[expert];
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      if (row0 + row + i < b && column0 + column + j < a)
        out[(i64)(row0 + row + i) * a + column0 + column + j] = sums[i][j];
}

DEVICE int expertOf(const int* counts, int E, int row) {
  int end = 0;
  for (int e = 0; e < E; e++) {
    end += counts[e];
    if (row < end) return e;
  }
  return E;
}

// y [R, b] with biases[e] [b] added to the rows of expert e; nobody's rows stay. A block for each row.
KERNEL groupedBias(const A* y, const int* counts, const float* const* biases, A* out, int E, int b) {
  int expert = expertOf(counts, E, blockIdx.x);
  i64 at = (i64)blockIdx.x * b;
  for (int i = threadIdx.x; i < b; i += blockDim.x)
    store(out, at + i, load(y, at + i) + (expert < E ? biases[expert][i] : 0.0f));
}

// outs[e] [b]: sums over the rows of each expert. Grid: b in groups of 32, E; 8 warps take turns in rows.
KERNEL groupedBiasGrad(const A* dy, const int* counts, float* const* outs, int b) {
  __shared__ float parts[8][32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * 32 + lane, first = 0;
  for (int e = 0; e < blockIdx.y; e++) first += counts[e];
  int end = first + counts[blockIdx.y];
  float sum = 0.0f;
  if (column < b)
    for (int row = first + warp; row < end; row += 8) sum += load(dy, (i64)row * b + column);
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= b) return;
  for (int w = 1; w < 8; w++) sum += parts[w][lane];
  outs[blockIdx.y][column] = sum;
}
