// Products of each expert's rows in bfloat16 on tensor cores. Tiles of 128 by 128, steps of 64, three steps in flight
// by asynchronous copies; 8 warps, 64 by 32 results each. Sizes of rows are multiples of 8, rows of experts are any
// number.

#define SIDE 128
#define STEP 64
#define STAGES 3
#define GROUPED_THREADS 256

// A tile of 128 rows of 64 elements: rows `row0 + r` (below `rows`) of x [.., width], elements from `column` on.
DEVICE void loadWide(bf16* tile, const bf16* x, int row0, int rows, i64 width, int column, int columns) {
#pragma unroll
  for (int i = threadIdx.x; i < SIDE * (STEP / 8); i += GROUPED_THREADS) {
    int row = i / (STEP / 8), chunk = i % (STEP / 8);
    bool live = row0 + row < rows && column + chunk * 8 < columns;
    copyAsync(chunkAt<STEP>(tile, row, chunk), live ? x + (row0 + row) * width + column + chunk * 8 : x, live);
  }
}

// A tile of 64 rows of 128 elements.
DEVICE void loadTall(bf16* tile, const bf16* x, int row0, int rows, i64 width, int column, int columns) {
#pragma unroll
  for (int i = threadIdx.x; i < STEP * (SIDE / 8); i += GROUPED_THREADS) {
    int row = i / (SIDE / 8), chunk = i % (SIDE / 8);
    bool live = row0 + row < rows && column + chunk * 8 < columns;
    copyAsync(chunkAt<SIDE>(tile, row, chunk), live ? x + (row0 + row) * width + column + chunk * 8 : x, live);
  }
}

// sums [4][4][4] of a warp += left [128, 64] right [64, 128] of a step, of which the warp has rows 64 * (warp / 4) and
// columns 32 * (warp % 4). LT: left lies as [64, 128]; RT: right lies as [128, 64].
template <bool LT, bool RT>
DEVICE void multiplyStep(float (*sums)[4][4], bf16* left, bf16* right, int warp, int lane) {
  int row0 = (warp >> 2) * 64, column0 = (warp & 3) * 32;
#pragma unroll
  for (int k = 0; k < STEP / 16; k++) {
    u32 a[4][4], b[2][4];
#pragma unroll
    for (int m = 0; m < 4; m++)
      if (LT)
        loadMatricesTransposed(a[m], chunkAt<SIDE>(left, k * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                   (row0 >> 3) + m * 2 + ((lane >> 3) & 1)));
      else
        loadMatrices(a[m], chunkAt<STEP>(left, row0 + m * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < 2; n++)
      if (RT)
        loadMatrices(
            b[n], chunkAt<STEP>(right, column0 + n * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
      else
        loadMatricesTransposed(b[n], chunkAt<SIDE>(right, k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3),
                                                   (column0 >> 3) + n * 2 + (lane >> 4)));
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int n = 0; n < 2; n++) {
        multiplyAdd(sums[m][2 * n], a[m], b[n][0], b[n][1]);
        multiplyAdd(sums[m][2 * n + 1], a[m], b[n][2], b[n][3]);
      }
  }
}

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

// Runs `steps` steps, which `fetch` copies into stages of left and right tiles.
template <bool LT, bool RT, class Fetch>
DEVICE void pipeline(float (*sums)[4][4], bf16* shared, int steps, Fetch fetch) {
  constexpr int TILE = SIDE * STEP;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) fetch(s, shared + s * 2 * TILE, shared + s * 2 * TILE + TILE);
    commitCopies();
  }
  for (int s = 0; s < steps; s++) {
    waitCopies<STAGES - 2>();
    __syncthreads();
    int next = s + STAGES - 1;
    bf16* to = shared + next % STAGES * 2 * TILE;
    if (next < steps) fetch(next, to, to + TILE);
    commitCopies();
    bf16* at = shared + s % STAGES * 2 * TILE;
    multiplyStep<LT, RT>(sums, at, at + TILE, warp, lane);
  }
}

// x [R, a] -> out [R, b]: rows of expert e times weights[e], [a, b], or [b, a] if RT; nobody's rows become zeros. Grid:
// tiles of b, tiles of rows.
template <bool RT>
DEVICE void groupedRows(bf16* shared, const bf16* x, const int* counts, const bf16* const* weights, bf16* out, int R,
                        int E, int a, int b) {
  int expert, first, end, column0 = blockIdx.x * SIDE, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  findRows(counts, E, R, blockIdx.y, expert, first, end);
  if (first >= end) return;
  float sums[4][4][4] = {};
  if (expert < E) {
    const bf16* w = weights[expert];
    pipeline<false, RT>(sums, shared, (a + STEP - 1) / STEP, [&](int s, bf16* left, bf16* right) {
      loadWide(left, x, first, end, a, s * STEP, a);
      if (RT)
        loadWide(right, w, column0, b, a, s * STEP, a);
      else
        loadTall(right, w, s * STEP, a, b, column0, b);
    });
  }
  int row0 = first + (warp >> 2) * 64 + (lane >> 2), column = column0 + (warp & 3) * 32 + (lane & 3) * 2;
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int row = row0 + m * 16 + h * 8;
#pragma unroll
      for (int n = 0; n < 4; n++)
        if (row < end && column + n * 8 < b)
          *(u32*)(out + (i64)row * b + column + n * 8) = packed(sums[m][n][2 * h], sums[m][n][2 * h + 1]);
    }
}

KERNEL __launch_bounds__(GROUPED_THREADS, 2)
    groupedProduct(const bf16* x, const int* counts, const bf16* const* weights, bf16* out, int R, int E, int a,
                   int b) {
  extern __shared__ bf16 shared[];
  groupedRows<false>(shared, x, counts, weights, out, R, E, a, b);
}

KERNEL __launch_bounds__(GROUPED_THREADS, 2)
    groupedProductTransposed(const bf16* x, const int* counts, const bf16* const* weights, bf16* out, int R, int E,
                             int a, int b) {
  extern __shared__ bf16 shared[];
  groupedRows<true>(shared, x, counts, weights, out, R, E, a, b);
}

// outs[e] [b, a] = dy_e^T x_e in float, zeros for an expert without rows. Grid: tiles of a, tiles of b, E.
KERNEL __launch_bounds__(GROUPED_THREADS, 2)
    groupedWeightGradient(const bf16* x, const bf16* dy, const int* counts, float* const* outs, int a, int b) {
  extern __shared__ bf16 shared[];
  int expert = blockIdx.z, first = 0, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int e = 0; e < expert; e++) first += counts[e];
  int end = first + counts[expert], row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE;
  float sums[4][4][4] = {};
  pipeline<true, false>(sums, shared, (end - first + STEP - 1) / STEP, [&](int s, bf16* left, bf16* right) {
    loadTall(left, dy, first + s * STEP, end, b, row0, b);
    loadTall(right, x, first + s * STEP, end, a, column0, a);
  });
  float* out = outs[expert];
  int row = row0 + (warp >> 2) * 64 + (lane >> 2), column = column0 + (warp & 3) * 32 + (lane & 3) * 2;
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int n = 0; n < 4; n++)
        if (row + m * 16 + h * 8 < b && column + n * 8 < a) {
          float* to = out + (i64)(row + m * 16 + h * 8) * a + column + n * 8;
          to[0] = sums[m][n][2 * h];
          to[1] = sums[m][n][2 * h + 1];
        }
}
