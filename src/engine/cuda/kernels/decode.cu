// Decoding: a few new tokens, whose time is that of reading weights and past keys and values once.
//
// Products of few tokens by tensor cores, the weights' rows as the left operand and the tokens as the right one, so that
// no row of a tile is idle. Up to 16 tokens are one block's; of more, each block of the grid's second side has 32. Both operands come straight from memory, 16 bytes for each lane: a product may take its
// sums in any order, so a lane's eight neighbouring elements stand for the places of two steps of mma. The warps of a
// block share the elements of 16 rows and add up what they found in a fixed order.
// M tokens, K elements of a row, a multiple of 8.

// Rows of a tile, elements that a warp takes at a time, and warps of a block at most; of one with 32 tokens.
#define ROWS 16
#define DEPTH 32
#define WARPS 16
#define WARPS_OF_MANY 8

// Eight elements, or zeros: of weights, which are read once, and of tokens, which other blocks read, too. Loads are
// issued where they stand, so that many are on their way at a time.
#ifdef EMULATED
DEVICE uint4 streamed(const bf16* p, i64 i, bool live) {
  uint4 zeros = {0, 0, 0, 0};
  return live ? *(const uint4*)(p + i) : zeros;
}
DEVICE uint4 cached(const bf16* p, i64 i, bool live) { return streamed(p, i, live); }
#else
#define LOADED(name, how)                                                                     \
  DEVICE uint4 name(const bf16* p, i64 i, bool live) {                                         \
    uint4 w = {0, 0, 0, 0};                                                                   \
    if (live)                                                                                 \
      asm volatile("ld.global" how ".v4.u32 {%0,%1,%2,%3},[%4];"                           \
                   : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)                               \
                   : "l"(p + i));                                                             \
    return w;                                                                                 \
  }
LOADED(streamed, ".nc.L1::no_allocate")
LOADED(cached, "")
#endif

DEVICE float lower(u32 word) { return __uint_as_float(word << 16); }
DEVICE float upper(u32 word) { return __uint_as_float(word & 0xffff0000u); }

// A word of two elements times two weights of a norm; their squares are added to `square`.
DEVICE u32 weighted(u32 word, const float* norm, float& square) {
  float x = lower(word), y = upper(word);
  square += x * x + y * y;
  return packed(x * norm[0], y * norm[1]);
}

// What a lane adds up: products of 16 rows of W matrices with 8 T tokens, and squares of one token of each eight.
template <int T, int W>
struct Sums {
  float products[W][T][4];
  float squares[T];
};

// Adds the products of this warp's share of the rows; with `Early`, the tokens may not be there yet. `rows`: rows
// lane / 4 and lane / 4 + 8 of each matrix's tile; `tokens`: token lane / 4 of each eight, null where there is none. With
// `norm`, tokens are weighted by it.
template <int T, int W, int AHEAD, bool Early>
DEVICE void addProducts(Sums<T, W>& sums, const bf16* (*rows)[2], const bf16** tokens, const float* norm, int K) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, own = (lane & 3) * 8, apart = blockDim.x;
  for (int k0 = warp * DEPTH; k0 < K; k0 += apart * AHEAD) {
    uint4 left[AHEAD][W][2], right[AHEAD][T];
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
      int k = k0 + s * apart + own;
#pragma unroll
      for (int w = 0; w < W; w++)
#pragma unroll
        for (int half = 0; half < 2; half++) left[s][w][half] = streamed(rows[w][half], k, k < K);
    }
    if (Early && k0 == warp * DEPTH) waitForLast();
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
      int k = k0 + s * apart + own;
#pragma unroll
      for (int t = 0; t < T; t++) right[s][t] = cached(tokens[t], k, k < K && tokens[t] != 0);
    }
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
      int k = k0 + s * apart + own;
      if (norm != 0 && k < K) {
        float n[8];
        load8(norm, k, n);
#pragma unroll
        for (int t = 0; t < T; t++) {
          right[s][t].x = weighted(right[s][t].x, n, sums.squares[t]);
          right[s][t].y = weighted(right[s][t].y, n + 2, sums.squares[t]);
          right[s][t].z = weighted(right[s][t].z, n + 4, sums.squares[t]);
          right[s][t].w = weighted(right[s][t].w, n + 6, sums.squares[t]);
        }
      }
#pragma unroll
      for (int w = 0; w < W; w++) {
        uint4 a = left[s][w][0], b = left[s][w][1];
        u32 first[4] = {a.x, b.x, a.y, b.y}, second[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
        for (int t = 0; t < T; t++) {
          multiplyAdd(sums.products[w][t], first, right[s][t].x, right[s][t].y);
          multiplyAdd(sums.products[w][t], second, right[s][t].z, right[s][t].w);
        }
      }
    }
  }
}

// Calls `finish(row, token, results)` with the W sums over all warps for every row of the tile and every token, each times
// 1 / sqrt(mean of the token's squares + eps) where `scaled`.
template <int T, int W, int MOST = WARPS, class Finish>
DEVICE void joinWarps(const Sums<T, W>& sums, bool scaled, float eps, int K, Finish finish) {
  __shared__ float products[MOST][W][T][4][32];
  __shared__ float squares[MOST][T][8];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll
  for (int t = 0; t < T; t++) {
#pragma unroll
    for (int w = 0; w < W; w++)
#pragma unroll
      for (int i = 0; i < 4; i++) products[warp][w][t][i][lane] = sums.products[w][t][i];
    float square = sums.squares[t];
    square += __shfl_xor_sync(0xffffffffu, square, 1);
    square += __shfl_xor_sync(0xffffffffu, square, 2);
    if ((lane & 3) == 0) squares[warp][t][lane >> 2] = square;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < T * 128; i += blockDim.x) {
    int from = i & 31, part = (i >> 5) & 3, t = i >> 7;
    int row = (from >> 2) + (part >> 1) * 8, token = (from & 3) * 2 + (part & 1);
    float factor = 1.0f, results[W];
    if (scaled) {
      float square = 0.0f;
      for (int w = 0; w < warps; w++) square += squares[w][t][token];
      factor = 1.0f / sqrtf(square / K + eps);
    }
    for (int m = 0; m < W; m++) {
      results[m] = 0.0f;
      for (int w = 0; w < warps; w++) results[m] += products[w][m][t][part][from];
      results[m] *= factor;
    }
    finish(row, t * 8 + token, results);
  }
}

// Rows lane / 4 and lane / 4 + 8 of a matrix [n, K]; beyond its end, its last one.
DEVICE void rowsOfTile(const bf16** rows, const bf16* matrix, int tile, int n, int K) {
  int row = tile * ROWS + ((threadIdx.x & 31) >> 2);
  rows[0] = matrix + (i64)min(row, n - 1) * K;
  rows[1] = matrix + (i64)min(row + 8, n - 1) * K;
}

// Tokens lane / 4 of each eight from `first` on.
template <int T>
DEVICE void tokensOf(const bf16** tokens, const bf16* x, int first, int M, int K) {
#pragma unroll
  for (int t = 0; t < T; t++) {
    int token = first + t * 8 + ((threadIdx.x & 31) >> 2);
    tokens[t] = token < M ? x + (i64)token * K : 0;
  }
}

// One of the matrices [n, K] that tokens are multiplied with, and what the result [M, n] is written to.
#define TARGET(i) const bf16 *matrix##i, void *out##i, int n##i

// x [M, K], normed by the weight `norm` where that is not null, times up to three matrices; n is 0 for those that are
// not there. `addend` [M, n0] is added to the first result, of which it may be the memory. Results are float32 or bf16.
// Grid: the matrices' tiles, one after the other; M in groups of 8 T.
template <int T, int AHEAD, int MOST>
DEVICE void thinProduct(const bf16* x, const float* norm, float eps, const bf16* addend, int floats, int M, int K,
                        TARGET(0), TARGET(1), TARGET(2)) {
  int tile = blockIdx.x, tiles0 = (n0 + ROWS - 1) / ROWS, tiles1 = (n1 + ROWS - 1) / ROWS;
  const bf16* matrix = matrix0;
  void* out = out0;
  int n = n0;
  if (tile >= tiles0) {
    tile -= tiles0;
    matrix = matrix1, out = out1, n = n1;
    if (tile >= tiles1) {
      tile -= tiles1;
      matrix = matrix2, out = out2, n = n2;
    }
  }
  const bf16 *rows[1][2], *tokens[T];
  int firstToken = blockIdx.y * 8 * T;
  rowsOfTile(rows[0], matrix, tile, n, K);
  tokensOf<T>(tokens, x, firstToken, M, K);
  Sums<T, 1> sums = {};
  letNextBegin();
  addProducts<T, 1, AHEAD, true>(sums, rows, tokens, norm, K);
  // Warps that had no share have not waited.
  waitForLast();
  joinWarps<T, 1, MOST>(sums, norm != 0, eps, K, [&](int row, int token, const float* results) {
    row += tile * ROWS, token += firstToken;
    if (row >= n || token >= M) return;
    i64 at = (i64)token * n + row;
    float result = results[0] + (addend == 0 ? 0.0f : load(addend, at));
    if (floats)
      store((float*)out, at, result);
    else
      store((bf16*)out, at, result);
  });
}

KERNEL __launch_bounds__(512)
    thinProduct8(const bf16* x, const float* norm, float eps, const bf16* addend, int floats, int M, int K, TARGET(0),
                 TARGET(1), TARGET(2)) {
  thinProduct<1, 4, WARPS>(x, norm, eps, addend, floats, M, K, matrix0, out0, n0, matrix1, out1, n1, matrix2, out2, n2);
}

KERNEL __launch_bounds__(512)
    thinProduct16(const bf16* x, const float* norm, float eps, const bf16* addend, int floats, int M, int K, TARGET(0),
                  TARGET(1), TARGET(2)) {
  thinProduct<2, 4, WARPS>(x, norm, eps, addend, floats, M, K, matrix0, out0, n0, matrix1, out1, n1, matrix2, out2, n2);
}

KERNEL __launch_bounds__(256, 2)
    thinProduct32(const bf16* x, const float* norm, float eps, const bf16* addend, int floats, int M, int K, TARGET(0),
                  TARGET(1), TARGET(2)) {
  thinProduct<4, 3, WARPS_OF_MANY>(x, norm, eps, addend, floats, M, K, matrix0, out0, n0, matrix1, out1, n1, matrix2,
                                   out2, n2);
}

DEVICE float gatedUnit(float gate, float up) { return gate * sigmoid(gate) * up; }

// silu(x G^T) * (x U^T) [M, n] for gates and ups [n, K]; x as above. Grid: tiles; M in groups of 8 T.
template <int T, int MOST>
DEVICE void thinGated(const bf16* x, const float* norm, float eps, const bf16* gates, const bf16* ups, bf16* out, int M,
                      int K, int n) {
  const bf16 *rows[2][2], *tokens[T];
  rowsOfTile(rows[0], gates, blockIdx.x, n, K);
  rowsOfTile(rows[1], ups, blockIdx.x, n, K);
  int firstToken = blockIdx.y * 8 * T;
  tokensOf<T>(tokens, x, firstToken, M, K);
  Sums<T, 2> sums = {};
  letNextBegin();
  addProducts<T, 2, 2, true>(sums, rows, tokens, norm, K);
  waitForLast();
  joinWarps<T, 2, MOST>(sums, norm != 0, eps, K, [&](int row, int token, const float* results) {
    row += blockIdx.x * ROWS, token += firstToken;
    if (row < n && token < M) store(out, (i64)token * n + row, gatedUnit(results[0], results[1]));
  });
}

KERNEL __launch_bounds__(512)
    thinGated8(const bf16* x, const float* norm, float eps, const bf16* gates, const bf16* ups, bf16* out, int M,
               int K, int n) {
  thinGated<1, WARPS>(x, norm, eps, gates, ups, out, M, K, n);
}

KERNEL __launch_bounds__(512)
    thinGated16(const bf16* x, const float* norm, float eps, const bf16* gates, const bf16* ups, bf16* out, int M,
                int K, int n) {
  thinGated<2, WARPS>(x, norm, eps, gates, ups, out, M, K, n);
}

KERNEL __launch_bounds__(256, 2)
    thinGated32(const bf16* x, const float* norm, float eps, const bf16* gates, const bf16* ups, bf16* out, int M,
                int K, int n) {
  thinGated<4, WARPS_OF_MANY>(x, norm, eps, gates, ups, out, M, K, n);
}

// The gated units [M * k, n] of each token's chosen experts, whose gates and ups are [n, K]. Nothing is read of experts
// that nobody chose; neighbouring blocks share an expert's rows where tokens do. Grid: M * k, tiles.
KERNEL __launch_bounds__(512)
    chosenGated(const bf16* x, const int* chosen, const bf16* const* gates, const bf16* const* ups, bf16* out, int K,
                int n, int k) {
  const bf16 *rows[2][2], *tokens[1];
  takeTurn();
  int slot = blockIdx.x, expert = chosen[slot];
  rowsOfTile(rows[0], gates[expert], blockIdx.y, n, K);
  rowsOfTile(rows[1], ups[expert], blockIdx.y, n, K);
  tokensOf<1>(tokens, x + (i64)(slot / k) * K, 0, 1, K);
  Sums<1, 2> sums = {};
  addProducts<1, 2, 2, false>(sums, rows, tokens, 0, K);
  joinWarps(sums, false, 0.0f, K, [&](int row, int token, const float* results) {
    row += blockIdx.y * ROWS;
    if (row < n && token == 0) store(out, (i64)slot * n + row, gatedUnit(results[0], results[1]));
  });
}

// Sums over each token's k units [M * k, K], each times its expert's [n, K] and its weight; `addend` [M, n] as above.
// Grid: M, tiles.
KERNEL __launch_bounds__(512)
    chosenSum(const bf16* units, const int* chosen, const float* weights, const bf16* const* matrices,
              const bf16* addend, bf16* out, int K, int n, int k) {
  const bf16 *rows[1][2], *tokens[1];
  Sums<1, 1> total = {};
  takeTurn();
  for (int i = 0; i < k; i++) {
    int slot = blockIdx.x * k + i;
    rowsOfTile(rows[0], matrices[chosen[slot]], blockIdx.y, n, K);
    tokensOf<1>(tokens, units + (i64)slot * K, 0, 1, K);
    Sums<1, 1> sums = {};
    addProducts<1, 1, 4, false>(sums, rows, tokens, 0, K);
    for (int j = 0; j < 4; j++) total.products[0][0][j] += weights[slot] * sums.products[0][0][j];
  }
  joinWarps(total, false, 0.0f, K, [&](int row, int token, const float* results) {
    row += blockIdx.y * ROWS;
    i64 at = (i64)blockIdx.x * n + row;
    if (row < n && token == 0) store(out, at, results[0] + (addend == 0 ? 0.0f : load(addend, at)));
  });
}

// The rows of `from` [.., K] that belong to an expert's slots: those of `places` from `first` on, of which there are
// `count`. With `order`, a place is a slot's, whose token is one of k slots'.
DEVICE void slotsOf(const bf16** rows, const bf16* from, const int* order, i64 places, int first, int count, int K, int k) {
#pragma unroll
  for (int t = 0; t < 4; t++) {
    int place = first + t * 8 + ((threadIdx.x & 31) >> 2);
    i64 row = place >= count ? 0 : order == 0 ? places + place : order[places + place] / k;
    rows[t] = place < count ? from + row * K : 0;
  }
}

DEVICE i64 slotsBefore(const int* counts, int expert) {
  int before = 0;
  for (int e = 0; e < expert; e++) before += counts[e];
  return before;
}

// Gated units [slots, n] of more tokens, whose slots are sorted by expert: `order` has them, `counts` how many each expert
// has, of each token one at most. Gates and ups of every expert are read once for each 32 of its slots. Grid: tiles,
// experts, M in groups of 32.
KERNEL __launch_bounds__(256, 2)
    sortedGated(const bf16* x, const int* order, const int* counts, const bf16* const* gates, const bf16* const* ups,
                bf16* out, int K, int n, int k) {
  const bf16 *rows[2][2], *tokens[4];
  int expert = blockIdx.y, first = blockIdx.z * 32;
  takeTurn();
  int count = counts[expert];
  if (first >= count) return;
  i64 places = slotsBefore(counts, expert);
  rowsOfTile(rows[0], gates[expert], blockIdx.x, n, K);
  rowsOfTile(rows[1], ups[expert], blockIdx.x, n, K);
  slotsOf(tokens, x, order, places, first, count, K, k);
  Sums<4, 2> sums = {};
  addProducts<4, 2, 2, false>(sums, rows, tokens, 0, K);
  joinWarps<4, 2, WARPS_OF_MANY>(sums, false, 0.0f, K, [&](int row, int token, const float* results) {
    row += blockIdx.x * ROWS, token += first;
    if (row < n && token < count) store(out, (places + token) * n + row, gatedUnit(results[0], results[1]));
  });
}

// units [slots, K], sorted by expert, times their experts' matrices [n, K]. Grid as above.
KERNEL __launch_bounds__(256, 2)
    sortedProduct(const bf16* units, const int* counts, const bf16* const* matrices, bf16* out, int K, int n) {
  const bf16 *rows[1][2], *tokens[4];
  int expert = blockIdx.y, first = blockIdx.z * 32;
  takeTurn();
  int count = counts[expert];
  if (first >= count) return;
  i64 places = slotsBefore(counts, expert);
  rowsOfTile(rows[0], matrices[expert], blockIdx.x, n, K);
  slotsOf(tokens, units, 0, places, first, count, K, 1);
  Sums<4, 1> sums = {};
  addProducts<4, 1, 3, false>(sums, rows, tokens, 0, K);
  joinWarps<4, 1, WARPS_OF_MANY>(sums, false, 0.0f, K, [&](int row, int token, const float* results) {
    row += blockIdx.x * ROWS, token += first;
    if (row < n && token < count) store(out, (places + token) * n + row, results[0]);
  });
}

// x [M, K] times a matrix [n, K] in float32: routers. A warp for each result.
KERNEL floatProduct(const bf16* x, const float* matrix, float* out, int M, int n, int K) {
  int at = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  takeTurn();
  if (at >= M * n) return;
  i64 token = (i64)(at / n) * K, row = (i64)(at % n) * K;
  float sum = 0.0f, a[8], b[8];
  for (int k = lane * 8; k < K; k += 256) {
    load8(x, token + k, a);
    load8(matrix, row + k, b);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += a[j] * b[j];
  }
  sum = warpSum(sum);
  if (lane == 0) out[at] = sum;
}

// What an element becomes by being stored.
DEVICE float asStored(float x, const float*) { return x; }
DEVICE float asStored(float x, const bf16*) { return lower(packed(x, 0.0f)); }

// Eight elements of a head from `d` on, turned by their position's angles [D / 2]: pairs are (i, i + D / 2). All lanes of
// a head take part; `lanes` of them hold it.
DEVICE void turn(float* x, const float* cosines, const float* sines, int d, int D, int lanes) {
  int half = D / 2;
  float c[8], s[8];
  load8(cosines, d % half, c);
  load8(sines, d % half, s);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float other = __shfl_xor_sync(0xffffffffu, x[j], lanes / 2);
    x[j] = x[j] * c[j] + (d < half ? -other : other) * s[j];
  }
}

#define ATTEND_WARPS 4
// Elements of results that the streams of a block hold: 128 threads with eight each.
#define HELD 1024
// Scores and their tops are in units of log 2.
#define LOG2E 1.4426950408889634f

// Eight elements as they lie in memory, on their way.
template <class Element>
struct Eight {
  uint4 words[sizeof(Element) / 2];
};
#ifdef EMULATED
DEVICE uint4 fetched(const uint4* p) { return *p; }
#else
// Issued where it stands, and kept out of the first cache: a key is read once.
DEVICE uint4 fetched(const uint4* p) {
  uint4 w;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
               : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
               : "l"(p));
  return w;
}
#endif
template <class Element>
DEVICE void fetch(Eight<Element>& to, const Element* p, i64 i) {
#pragma unroll
  for (int w = 0; w < sizeof(Element) / 2; w++) to.words[w] = fetched((const uint4*)(p + i) + w);
}
DEVICE void unpack(const Eight<bf16>& from, float* x) {
  uint4 w = from.words[0];
  x[0] = lower(w.x), x[1] = upper(w.x), x[2] = lower(w.y), x[3] = upper(w.y);
  x[4] = lower(w.z), x[5] = upper(w.z), x[6] = lower(w.w), x[7] = upper(w.w);
}
DEVICE void unpack(const Eight<float>& from, float* x) {
#pragma unroll
  for (int w = 0; w < 2; w++) {
    uint4 v = from.words[w];
    x[4 * w] = __uint_as_float(v.x), x[4 * w + 1] = __uint_as_float(v.y);
    x[4 * w + 2] = __uint_as_float(v.z), x[4 * w + 3] = __uint_as_float(v.w);
  }
}

// Keys of a lane that are on their way at a time, while it works with as many.
template <class Element>
struct Ahead {
  static const int keys = sizeof(Element) == 2 ? 4 : 2;
};

// The score of a key, whose elements are spread over `lanes` lanes, in units of log 2.
DEVICE float scoreOf(const float* query, const float* key, int lanes, float cap) {
  float dot = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; j++) dot += query[j] * key[j];
  for (int step = lanes / 2; step > 0; step >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, step);
  return LOG2E * (cap > 0.0f ? cap * tanhf(dot / cap) : dot);
}

// One new token in each row of a batch, which stands at lengths[b] and sees the row's past keys [B, kvHeads, C, D] and
// itself. Its key and value join the cache where counts[b] says so. With `cosines` [B, D / 2], queries and keys are turned
// here. Heads of D elements lie in `lanes` = D / 8 lanes; each such group of lanes walks over keys of its own, for G query
// heads at once, and the groups' results are joined in a fixed order. Keys are cut into gridDim.x parts; with more than
// one, the last block to come joins them: `arrived` [B * gridDim.y] is zero before and after.
// Grid: parts, kvHeads times groups of G query heads of each, B. Rows of q, k and v lie apart by their strides.
template <int G>
DEVICE void decodeAttention(const A* q, const A* k, const A* v, A* pastK, A* pastV, const int* lengths,
                            const int* counts, const float* cosines, const float* sines, const float* sinks, A* out,
                            float* parts, int* arrived, int heads, int kvHeads, int D, int C, float scale, int window,
                            float cap, int qStride, int kStride, int vStride) {
  const int KEYS = Ahead<A>::keys;
  __shared__ float results[G][HELD], tops[G][32], sums[G][32];
  __shared__ int isLast;
  letNextBegin();
  int lanes = D / 8, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, perWarp = 32 / lanes;
  int stream = warp * perWarp + lane / lanes, streams = ATTEND_WARPS * perWarp, d = lane % lanes * 8;
  int b = blockIdx.z, group = heads / kvHeads, chunks = group / G, kvHead = blockIdx.y / chunks;
  int head = kvHead * group + blockIdx.y % chunks * G, split = blockIdx.x, splits = gridDim.x;
  int past = lengths[b], first = window > 0 ? max(0, past - window + 1) : 0;
  int share = (past + 1 - first + splits - 1) / splits, begin = first + split * share;
  bool hasOwn = begin <= past && past < begin + share;
  // Past keys alone: its own are at hand.
  int end = min(past, begin + share), last = max(end - 1, 0);
  i64 cache = ((i64)b * kvHeads + kvHead) * C;
  const A *fromK = pastK + cache * D + d, *fromV = pastV + cache * D + d;
  // The bounds are the same for all lanes of a warp, which exchange what they find; beyond the end, the last key is read.
  int j0 = begin + warp * perWarp, own = lane / lanes;
  Eight<A> keys[KEYS], values[KEYS];
  if (j0 < end)
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      i64 at = (i64)min(j0 + u * streams + own, last) * D;
      fetch(keys[u], fromK, at);
      fetch(values[u], fromV, at);
    }
  // Past keys and lengths were there before this step began; queries and new keys come from the launch before.
  waitForLast();
  float query[G][8], key[8], value[8];
  load8(k, (i64)b * kStride + kvHead * D + d, key);
  load8(v, (i64)b * vStride + kvHead * D + d, value);
  if (cosines != 0) turn(key, cosines + (i64)b * (D / 2), sines + (i64)b * (D / 2), d, D, lanes);
#pragma unroll
  for (int j = 0; j < 8; j++) key[j] = asStored(key[j], k);
#pragma unroll
  for (int g = 0; g < G; g++) {
    load8(q, (i64)b * qStride + (head + g) * D + d, query[g]);
    if (cosines != 0) turn(query[g], cosines + (i64)b * (D / 2), sines + (i64)b * (D / 2), d, D, lanes);
#pragma unroll
    for (int j = 0; j < 8; j++) query[g][j] *= scale;
  }
  bool joins = hasOwn && blockIdx.y % chunks == 0 && counts[b] > 0 && past < C;
  if (joins && stream == 0) {
    store8(pastK, (cache + past) * D + d, key);
    store8(pastV, (cache + past) * D + d, value);
  }
  float top[G], sum[G], result[G][8];
#pragma unroll
  for (int g = 0; g < G; g++) {
    float score = scoreOf(query[g], key, lanes, cap);
    bool mine = hasOwn && stream == 0;
    top[g] = mine ? score : minusInfinity(), sum[g] = mine ? 1.0f : 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) result[g][j] = mine ? value[j] : 0.0f;
  }
  for (; j0 < end; j0 += streams * KEYS) {
    int next0 = j0 + streams * KEYS;
    Eight<A> nextKeys[KEYS], nextValues[KEYS];
    if (next0 < end)
#pragma unroll
      for (int u = 0; u < KEYS; u++) {
        i64 at = (i64)min(next0 + u * streams + own, last) * D;
        fetch(nextKeys[u], fromK, at);
        fetch(nextValues[u], fromV, at);
      }
    float scores[G][KEYS];
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      float x[8];
      unpack(keys[u], x);
#pragma unroll
      for (int g = 0; g < G; g++) {
        float score = scoreOf(query[g], x, lanes, cap);
        scores[g][u] = j0 + u * streams + own < end ? score : minusInfinity();
      }
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
      float most = top[g];
#pragma unroll
      for (int u = 0; u < KEYS; u++) most = fmaxf(most, scores[g][u]);
      // Where nothing was seen yet, any finite number will do.
      float base = most == minusInfinity() ? 0.0f : most, shrink = power2(top[g] - base);
      top[g] = most;
      sum[g] *= shrink;
#pragma unroll
      for (int j = 0; j < 8; j++) result[g][j] *= shrink;
#pragma unroll
      for (int u = 0; u < KEYS; u++) sum[g] += scores[g][u] = power2(scores[g][u] - base);
    }
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      float x[8];
      unpack(values[u], x);
#pragma unroll
      for (int g = 0; g < G; g++)
#pragma unroll
        for (int j = 0; j < 8; j++) result[g][j] += scores[g][u] * x[j];
    }
    if (next0 < end)
#pragma unroll
      for (int u = 0; u < KEYS; u++) keys[u] = nextKeys[u], values[u] = nextValues[u];
  }
#pragma unroll
  for (int g = 0; g < G; g++) {
    for (int j = 0; j < 8; j++) results[g][stream * D + d + j] = result[g][j];
    if (d == 0) tops[g][stream] = top[g], sums[g][stream] = sum[g];
  }
  __syncthreads();
  // Of each head: result [D], top and sum.
  i64 place = ((i64)b * heads + head) * splits * (D + 2);
  for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
    int g = i / D, at = i % D;
    float sink = sinks == 0 || splits > 1 ? minusInfinity() : LOG2E * sinks[head + g];
    float most = sink, total = 0.0f, joint = 0.0f;
    for (int s = 0; s < streams; s++) most = fmaxf(most, tops[g][s]);
    if (most != minusInfinity()) {
      if (sink != minusInfinity()) total = power2(sink - most);
      for (int s = 0; s < streams; s++) {
        float weight = power2(tops[g][s] - most);
        total += weight * sums[g][s];
        joint += weight * results[g][s * D + at];
      }
    }
    if (splits == 1) {
      store(out, ((i64)b * heads + head + g) * D + at, joint / total);
      continue;
    }
    float* own = parts + place + ((i64)g * splits + split) * (D + 2);
    own[at] = joint;
    if (at == 0) own[D] = most, own[D + 1] = total;
  }
  if (splits == 1) return;
  __threadfence();
  __syncthreads();
  int* counter = arrived + b * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) isLast = atomicAdd(counter, 1) == splits - 1;
  __syncthreads();
  if (!isLast) return;
  __threadfence();
  if (threadIdx.x == 0) *counter = 0;
  for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
    int g = i / D, at = i % D;
    const volatile float* own = parts + place + (i64)g * splits * (D + 2);
    float sink = sinks == 0 ? minusInfinity() : LOG2E * sinks[head + g], most = sink, joint = 0.0f;
    for (int s = 0; s < splits; s++) most = fmaxf(most, own[s * (D + 2) + D]);
    float total = sink == minusInfinity() ? 0.0f : power2(sink - most);
    for (int s = 0; s < splits; s++) {
      float weight = power2(own[s * (D + 2) + D] - most);
      total += weight * own[s * (D + 2) + D + 1];
      joint += weight * own[s * (D + 2) + at];
    }
    store(out, ((i64)b * heads + head + g) * D + at, joint / total);
  }
}

// Arguments of the kernels, and their names.
#define ATTEND                                                                                                     \
  const A *q, const A *k, const A *v, A *pastK, A *pastV, const int *lengths, const int *counts,                   \
      const float *cosines, const float *sines, const float *sinks, A *out, float *parts, int *arrived, int heads, \
      int kvHeads, int D, int C, float scale, int window, float cap, int qStride, int kStride, int vStride
#define ATTENDED                                                                                                   \
  q, k, v, pastK, pastV, lengths, counts, cosines, sines, sinks, out, parts, arrived, heads, kvHeads, D, C, scale, \
      window, cap, qStride, kStride, vStride

KERNEL __launch_bounds__(128) decodeAttention1(ATTEND) { decodeAttention<1>(ATTENDED); }
KERNEL __launch_bounds__(128) decodeAttention2(ATTEND) { decodeAttention<2>(ATTENDED); }
KERNEL __launch_bounds__(128) decodeAttention4(ATTEND) { decodeAttention<4>(ATTENDED); }

// Rows [heads * size] of one new token to their places in the cache; in eights where rows may be taken so.
DEVICE void appendRow(const A* from, A* to, int heads, int C, int size, int eights) {
  if (eights) {
    float x[8];
    for (int i = threadIdx.x * 8; i < heads * size; i += blockDim.x * 8) {
      load8(from, i, x);
      store8(to, (i64)(i / size) * C * size + i % size, x);
    }
    return;
  }
  for (int i = threadIdx.x; i < heads * size; i += blockDim.x) to[(i64)(i / size) * C * size + i % size] = from[i];
}

// Puts the first counts[b] of each row's T new keys and values [B * T, heads * size], of D and V elements in rows that
// lie apart by their strides, behind its lengths[b] past ones in the cache [B, heads, C, size]. Grid: T, B.
KERNEL appendCache(const A* k, const A* v, A* pastK, A* pastV, const int* lengths, const int* counts, int T, int heads,
                   int C, int D, int V, int kStride, int vStride, int eights) {
  int token = blockIdx.x, row = blockIdx.y, place = lengths[row] + token;
  if (token >= counts[row] || place >= C) return;
  i64 from = (i64)row * T + token, to = (i64)row * heads * C + place;
  appendRow(k + from * kStride, pastK + to * D, heads, C, D, eights);
  appendRow(v + from * vStride, pastV + to * V, heads, C, V, eights);
}

// Keys or values of a cache [groups, C, size] in another capacity; what does not fit is lost. A block for each group.
KERNEL moveCache(const A* from, A* to, int C, int other, int size) {
  i64 kept = (i64)min(C, other) * size, group = blockIdx.x;
  for (i64 i = threadIdx.x; i < (i64)other * size; i += blockDim.x)
    if (i < kept)
      to[group * other * size + i] = from[group * C * size + i];
    else
      store(to, group * other * size + i, 0.0f);
}

// What cannot be chosen: not a number, or infinite.
#define UNUSABLE -1

// The better of two places; `place` is UNUSABLE for good where one of them is.
DEVICE void takeBetter(float& top, int& place, float other, int at) {
  if (place == UNUSABLE || at == UNUSABLE)
    place = UNUSABLE;
  else if (other > top || (other == top && at < place))
    top = other, place = at;
}

DEVICE void bestOfWarp(float& top, int& place) {
  for (int step = 16; step > 0; step >>= 1) {
    float other = __shfl_xor_sync(0xffffffffu, top, step);
    int at = __shfl_xor_sync(0xffffffffu, place, step);
    takeBetter(top, place, other, at);
  }
}

// The largest of each part of logits [B, V], and its place, the lowest of equals. Grid: parts, B; 256 threads.
KERNEL bestPart(const float* logits, float* tops, int* places, int V) {
  __shared__ float topOf[8];
  __shared__ int placeOf[8];
  int parts = gridDim.x, share = (V + parts - 1) / parts, begin = blockIdx.x * share, end = min(V, begin + share);
  const float* own = logits + (i64)blockIdx.y * V;
  float top = minusInfinity();
  int place = 0x7fffffff;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    float x = own[i];
    takeBetter(top, place, x, isfinite(x) || x == minusInfinity() ? i : UNUSABLE);
  }
  bestOfWarp(top, place);
  if ((threadIdx.x & 31) == 0) topOf[threadIdx.x >> 5] = top, placeOf[threadIdx.x >> 5] = place;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < blockDim.x >> 5; w++) takeBetter(top, place, topOf[w], placeOf[w]);
  tops[blockIdx.y * parts + blockIdx.x] = top;
  places[blockIdx.y * parts + blockIdx.x] = place;
}

// The token of each row's largest logit becomes its next input, one position further on, and joins `chosen` [steps, B]
// in the line that `step` counts; UNUSABLE where there is none. A warp for each row in turn; one block.
KERNEL takeBest(const float* tops, const int* places, int* chosen, int* step, int* ids, int* positions, int* lengths,
                const int* counts, int B, int parts, int mostPositions) {
  int lane = threadIdx.x & 31, line = *step;
  for (int row = threadIdx.x >> 5; row < B; row += blockDim.x >> 5) {
    float top = minusInfinity();
    int place = 0x7fffffff;
    for (int i = lane; i < parts; i += 32) takeBetter(top, place, tops[row * parts + i], places[row * parts + i]);
    bestOfWarp(top, place);
    if (lane == 0) {
      chosen[line * B + row] = top == minusInfinity() ? UNUSABLE : place;
      ids[row] = max(0, top == minusInfinity() ? 0 : place);
      int length = lengths[row] + (counts[row] > 0);
      lengths[row] = length;
      positions[row] = min(length, mostPositions - 1);
    }
    __syncwarp();
  }
  __syncthreads();
  if (threadIdx.x == 0) *step = line + 1;
}
