// Products of each expert's rows in bfloat16 by wgmma and TMA, for compute capability 9.0. A block lives as long as the
// kernel and takes tile after tile: one warpgroup brings operands into a ring of stages, two multiply, 64 rows each of a
// tile of 128 by 256. Results leave through shared memory by bulk copies of rows while the next tile is at work.
//
// Operands are named by tensor maps: one for a matrix of rows, one for each expert's weights. Sizes of rows are
// multiples of 8, rows of experts are any number. R rows, E experts; rows behind the last expert's are nobody's.

#define RAGGED_THREADS 384
// Rows and columns of a tile, and the elements of a step.
#define TILE_ROWS 128
#define TILE_COLUMNS 256
#define DEPTH 64
// Results are written in pieces of so many columns, whose rows in shared memory are padded against conflicts of banks.
#define PIECE 128
#define PIECE_ROW (PIECE + 8)
#define LEFT_BYTES (TILE_ROWS * DEPTH * 2)
#define STAGE_BYTES (LEFT_BYTES + TILE_COLUMNS * DEPTH * 2)
// 64 elements of each of 64 rows.
#define BOX_BYTES (64 * 64 * 2)
#define CONSUMERS 256
// Registers of a thread that brings operands, and of one that multiplies.
#define FEW_REGISTERS 40
#define MANY_REGISTERS 232

// Where experts' rows and tiles of rows begin; E + 1 numbers each, and what lies behind the last expert is nobody's.
// `order` [E] has room for an order of the experts.
struct Groups {
  int* rows;
  int* tiles;
  int* order;
  int E;
};

// Fills `groups` from counts; all threads of a block.
DEVICE void findGroups(Groups groups, const int* counts) {
  int lane = threadIdx.x & 31;
  if (threadIdx.x < 32) {
    int rows = 0, tiles = 0;
    for (int e0 = 0; e0 < groups.E; e0 += 32) {
      int count = e0 + lane < groups.E ? counts[e0 + lane] : 0, ownTiles = (count + TILE_ROWS - 1) / TILE_ROWS;
      int sumRows = count, sumTiles = ownTiles;
      for (int step = 1; step < 32; step <<= 1) {
        int r = __shfl_up_sync(0xffffffffu, sumRows, step), t = __shfl_up_sync(0xffffffffu, sumTiles, step);
        if (lane >= step) {
          sumRows += r;
          sumTiles += t;
        }
      }
      if (e0 + lane < groups.E) {
        groups.rows[e0 + lane] = rows + sumRows - count;
        groups.tiles[e0 + lane] = tiles + sumTiles - ownTiles;
      }
      rows += __shfl_sync(0xffffffffu, sumRows, 31);
      tiles += __shfl_sync(0xffffffffu, sumTiles, 31);
    }
    if (lane == 0) {
      groups.rows[groups.E] = rows;
      groups.tiles[groups.E] = tiles;
    }
  }
  __syncthreads();
}

// The tiles that one block takes: tile after tile of `columns` tiles side by side, expert after expert.
struct Walk {
  int tile, expert, first, end, column;
};

// Goes to the walk's tile; false behind the last one. Nobody's rows are the last tiles.
DEVICE bool enter(Walk& walk, Groups groups, int R, int columns) {
  int tile = walk.tile / columns, E = groups.E;
  walk.column = walk.tile - tile * columns;
  while (walk.expert < E && tile >= groups.tiles[walk.expert + 1]) walk.expert++;
  walk.first = groups.rows[walk.expert] + (tile - groups.tiles[walk.expert]) * TILE_ROWS;
  int end = walk.expert < E ? groups.rows[walk.expert + 1] : R;
  walk.end = min(end, walk.first + TILE_ROWS);
  return walk.first < end;
}

// What a block has in shared memory: stages, a piece of results for each of 8 warps, two barriers for each stage, groups.
struct Shared {
  char* stages;
  int count;
  bf16* pieces;
  u64 *full, *empty;
  Groups groups;
};

// Lays out shared memory and makes the barriers; all threads of a block.
DEVICE Shared prepare(char* memory, int stages, const int* counts, int E) {
  Shared s;
  s.stages = memory;
  s.count = stages;
  s.pieces = (bf16*)(memory + stages * STAGE_BYTES);
  s.full = (u64*)(s.pieces + 8 * 16 * PIECE_ROW);
  s.empty = s.full + stages;
  s.groups.rows = (int*)(s.empty + stages);
  s.groups.tiles = s.groups.rows + E + 1;
  s.groups.order = s.groups.tiles + E + 1;
  s.groups.E = E;
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; i++) {
      initBarrier(s.full + i, 1);
      initBarrier(s.empty + i, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  findGroups(s.groups, counts);
  return s;
}

template <int TA, int TB, int COLUMNS>
DEVICE void multiplyColumns(float* c, u64 left, u64 right, int more) {
  if (COLUMNS == 256)
    wgmma256<TA, TB>(c, left, right, more);
  else
    wgmma128<TA, TB>(c, left, right, more);
}

// Multiplies the stages of one tile. TA, TB: the operand lies along its other side. `arrived` is called when a stage is
// there and has not been read.
template <int TA, int TB, int COLUMNS, class Arrived>
DEVICE void multiplyTile(float* c, Shared s, Ring& ring, int steps, int group, Arrived arrived) {
  bool first = (threadIdx.x & 127) == 0;
  int previous = -1;
  for (int step = 0; step < steps; step++) {
    waitFor(s.full + ring.stage, ring.phase);
    char* at = s.stages + ring.stage * STAGE_BYTES;
    arrived(step, at);
    u64 left = operandAt(at + group * (LEFT_BYTES / 2), 0), right = operandAt(at + LEFT_BYTES, BOX_BYTES);
    beginWgmma();
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++)
      multiplyColumns<TA, TB, COLUMNS>(c, left + k * (TA ? 2048 >> 4 : 32 >> 4), right + k * (TB ? 2048 >> 4 : 32 >> 4),
                                       step + k);
    commitWgmma();
    waitWgmma<1>();
    if (previous >= 0 && first) arrive(s.empty + previous);
    previous = ring.stage;
    advance(ring, s.count);
  }
  waitWgmma<0>();
  if (previous >= 0 && first) arrive(s.empty + previous);
}

// 16 rows of a warp, 128 columns, from registers to rows [row, ..) of out [.., width] from `column` on.
DEVICE void storePiece(const float* c, bf16* piece, bf16* out, int row, int end, int column, int width, int lane) {
  waitStores<0>();
  __syncwarp();
#pragma unroll
  for (int j = 0; j < PIECE / 8; j += 2)
    storeMatrices(piece + (lane & 15) * PIECE_ROW + (j + (lane >> 4)) * 8, packed(c[4 * j], c[4 * j + 1]),
                  packed(c[4 * j + 2], c[4 * j + 3]), packed(c[4 * j + 4], c[4 * j + 5]),
                  packed(c[4 * j + 6], c[4 * j + 7]));
  fenceShared();
  __syncwarp();
  if (lane < 16 && row + lane < end && column < width)
    storeBytes(out + (i64)(row + lane) * width + column, piece + lane * PIECE_ROW, min(PIECE, width - column) * 2);
  commitStores();
}

// Zeros in 16 rows of out [.., width] from `row` on, `columns` (a multiple of 8) of them.
DEVICE void storeZeros(bf16* out, int row, int end, int column, int columns, int width, int lane) {
  uint4 nothing = {0, 0, 0, 0};
  for (int r = row; r < min(end, row + 16); r++)
    for (int i = lane * 8; i < columns; i += 256) *(uint4*)(out + (i64)r * width + column + i) = nothing;
}

// What a product of rows computes: x times weights [b, a], times weights [a, b], or both of two weights [b, a] and the
// gated unit of the two.
#define PLAIN 0
#define TURNED 1
#define GATED 2

// What becomes of GATED's results; `gates` and `ups` may be null. Units are multiplied by the weight of each row's
// slot where `weights` is not null.
struct GatedTo {
  bf16 *gates, *ups, *units;
  const float* weights;
  const int* order;
};

// x [R, a] -> out [R, b], or x weights + y others with `y`; nobody's rows become zeros.
template <int MODE>
DEVICE void raggedRows(char* memory, const char* x, const char* y, const char* weights, const char* others,
                       const int* counts, bf16* out, GatedTo gated, int R, int E, int a, int b, int stages) {
  constexpr int WIDTH = MODE == GATED ? TILE_COLUMNS / 2 : TILE_COLUMNS;
  bool twice = MODE == TURNED && y != 0;
  acquireMaps(x, 1);
  acquireMaps(weights, E);
  if (twice) acquireMaps(y, 1);
  if (twice || MODE == GATED) acquireMaps(others, E);
  Shared s = prepare(memory, stages, counts, E);
  int columns = (b + WIDTH - 1) / WIDTH, depth = (a + DEPTH - 1) / DEPTH, steps = twice ? 2 * depth : depth;
  Walk walk = {(int)blockIdx.x, 0, 0, 0, 0};
  Ring ring = {0, 0};
  if (threadIdx.x < 128) {
    fewerRegisters<FEW_REGISTERS>();
    for (; threadIdx.x == 0 && enter(walk, s.groups, R, columns); walk.tile += gridDim.x) {
      if (walk.expert == E) continue;
      const char *left = x, *right = weights + walk.expert * MAP_BYTES, *second = others + walk.expert * MAP_BYTES;
      int column = walk.column * WIDTH;
      for (int step = 0; step < steps; step++) {
        if (step == depth) {
          left = y;
          right = second;
        }
        int k = (step >= depth ? step - depth : step) * DEPTH;
        u64* full = s.full + ring.stage;
        char *to = s.stages + ring.stage * STAGE_BYTES, *toRight = to + LEFT_BYTES;
        waitFor(s.empty + ring.stage, ring.phase ^ 1);
        expectBytes(full, STAGE_BYTES);
        loadBox(to, left, k, walk.first, full);
        if (MODE == PLAIN) loadBox(toRight, right, k, column, full);
        if (MODE == TURNED)
          for (int n = 0; n < 4; n++) loadBox(toRight + n * BOX_BYTES, right, column + n * 64, k, full);
        if (MODE == GATED) {
          loadBox(toRight, right, k, column, full);
          loadBox(toRight + 2 * BOX_BYTES, second, k, column, full);
        }
        advance(ring, stages);
      }
    }
  } else {
    moreRegisters<MANY_REGISTERS>();
    int lane = threadIdx.x & 31, group = (threadIdx.x >> 7) - 1, warp = (threadIdx.x >> 5) - 4;
    bf16* piece = s.pieces + warp * 16 * PIECE_ROW;
    float c[TILE_COLUMNS / 2];
    for (; enter(walk, s.groups, R, columns); walk.tile += gridDim.x) {
      int row = walk.first + warp * 16, column = walk.column * WIDTH;
      if (walk.expert == E) {
        int width = min(WIDTH, b - column);
        if (MODE != GATED) storeZeros(out, row, walk.end, column, width, b, lane);
        if (MODE == GATED) {
          if (gated.gates != 0) storeZeros(gated.gates, row, walk.end, column, width, b, lane);
          if (gated.ups != 0) storeZeros(gated.ups, row, walk.end, column, width, b, lane);
          storeZeros(gated.units, row, walk.end, column, width, b, lane);
        }
        continue;
      }
      multiplyTile<0, MODE == TURNED, TILE_COLUMNS>(c, s, ring, steps, group, [](int, char*) {});
      if (MODE != GATED) {
        storePiece(c, piece, out, row, walk.end, column, b, lane);
        storePiece(c + 64, piece, out, row, walk.end, column + PIECE, b, lane);
        continue;
      }
      if (gated.gates != 0) storePiece(c, piece, gated.gates, row, walk.end, column, b, lane);
      if (gated.ups != 0) storePiece(c + 64, piece, gated.ups, row, walk.end, column, b, lane);
      float by[2] = {1.0f, 1.0f};
      if (gated.weights != 0)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          int at = row + (lane >> 2) + 8 * h;
          if (at < walk.end) by[h] = gated.weights[gated.order[at]];
        }
#pragma unroll
      for (int i = 0; i < 64; i++) {
        // As if both had been read back in bfloat16.
        float gate = rounded(c[i]), up = rounded(c[i + 64]) * by[(i >> 1) & 1];
        c[i] = gate * __fdividef(up, 1.0f + power2(-1.4426950408889634f * gate));
      }
      storePiece(c, piece, gated.units, row, walk.end, column, b, lane);
    }
    waitAllStores();
  }
}

#define RAGGED_KERNEL extern "C" __global__ void __launch_bounds__(RAGGED_THREADS, 1)

RAGGED_KERNEL raggedProduct(const char* x, const char* weights, const int* counts, bf16* out, int R, int E, int a,
                            int b, int stages) {
  extern __shared__ __align__(1024) char memory[];
  raggedRows<PLAIN>(memory, x, 0, weights, 0, counts, out, {}, R, E, a, b, stages);
}

// With y and others, which may be null: the sum of two products.
RAGGED_KERNEL raggedProductTurned(const char* x, const char* weights, const char* y, const char* others,
                                  const int* counts, bf16* out, int R, int E, int a, int b, int stages) {
  extern __shared__ __align__(1024) char memory[];
  raggedRows<TURNED>(memory, x, y, weights, others, counts, out, {}, R, E, a, b, stages);
}

RAGGED_KERNEL raggedGated(const char* x, const char* gateWeights, const char* upWeights, const int* counts,
                          const float* weights, const int* order, bf16* gates, bf16* ups, bf16* units, int R, int E,
                          int a, int b, int stages) {
  extern __shared__ __align__(1024) char memory[];
  raggedRows<GATED>(memory, x, 0, gateWeights, upWeights, counts, 0, {gates, ups, units, weights, order}, R, E, a, b,
                    stages);
}

// Experts by falling number of rows, equal ones by number; all threads of a block.
DEVICE void sortGroups(Groups groups) {
  for (int e = threadIdx.x; e < groups.E; e += blockDim.x) {
    int own = groups.rows[e + 1] - groups.rows[e], before = 0;
    for (int o = 0; o < groups.E; o++) {
      int other = groups.rows[o + 1] - groups.rows[o];
      before += other > own || (other == own && o < e);
    }
    groups.order[before] = e;
  }
  __syncthreads();
}

// The tile that a block takes in a round. Tiles are sorted by falling work and every other round goes backwards, so that
// blocks have about equal sums of work.
DEVICE int tileOf(int round) {
  int blocks = gridDim.x, block = blockIdx.x;
  return round * blocks + (round & 1 ? blocks - 1 - block : block);
}

// outs[e] [b, a] = dy_e^T x_e in float, zeros for an expert without rows; tiles of 128 by COLUMNS.
template <int COLUMNS>
DEVICE void weightGradient(char* memory, const char* x, const char* dy, const int* counts, float* const* outs, int E,
                           int a, int b, int stages) {
  constexpr int BOXES = 2 + COLUMNS / 64;
  acquireMaps(x, 1);
  acquireMaps(dy, 1);
  Shared s = prepare(memory, stages, counts, E);
  int across = (a + COLUMNS - 1) / COLUMNS, down = (b + TILE_ROWS - 1) / TILE_ROWS;
  int each = across * down, tiles = each * E;
  sortGroups(s.groups);
  Ring ring = {0, 0};
  if (threadIdx.x < 128) {
    fewerRegisters<FEW_REGISTERS>();
    for (int round = 0, tile = tileOf(0); threadIdx.x == 0 && tile < tiles; tile = tileOf(++round)) {
      int expert = s.groups.order[tile / each], place = tile % each, row = place / across * TILE_ROWS;
      int column = place % across * COLUMNS, end = s.groups.rows[expert + 1];
      for (int first = s.groups.rows[expert]; first < end; first += DEPTH) {
        u64* full = s.full + ring.stage;
        char* to = s.stages + ring.stage * STAGE_BYTES;
        waitFor(s.empty + ring.stage, ring.phase ^ 1);
        expectBytes(full, BOXES * BOX_BYTES);
        for (int m = 0; m < 2; m++) loadBox(to + m * BOX_BYTES, dy, row + m * 64, first, full);
        for (int n = 0; n < COLUMNS / 64; n++) loadBox(to + LEFT_BYTES + n * BOX_BYTES, x, column + n * 64, first, full);
        advance(ring, stages);
      }
    }
  } else {
    moreRegisters<MANY_REGISTERS>();
    int lane = threadIdx.x & 31, group = (threadIdx.x >> 7) - 1, warp = (threadIdx.x >> 5) & 3, t = threadIdx.x - 128;
    float c[COLUMNS / 2];
    for (int round = 0, tile = tileOf(0); tile < tiles; tile = tileOf(++round)) {
      int expert = s.groups.order[tile / each], place = tile % each, first = s.groups.rows[expert];
      int count = s.groups.rows[expert + 1] - first;
      if (count == 0)
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++) c[i] = 0.0f;
      // Rows behind the expert's last one are another's: they are cleared in both operands.
      multiplyTile<1, 1, COLUMNS>(c, s, ring, (count + DEPTH - 1) / DEPTH, group, [&](int step, char* at) {
        int live = count - step * DEPTH, chunks = (DEPTH - live) * 8;
        if (live >= DEPTH) return;
        uint4 nothing = {0, 0, 0, 0};
        for (int i = t; i < BOXES * chunks; i += CONSUMERS) {
          int box = i / chunks, chunk = i - box * chunks;
          *(uint4*)(at + box * BOX_BYTES + live * 128 + chunk * 16) = nothing;
        }
        fenceShared();
        syncSome(1, CONSUMERS);
      });
      int row = place / across * TILE_ROWS + group * 64 + warp * 16 + (lane >> 2);
      int column = place % across * COLUMNS + (lane & 3) * 2;
      float* out = outs[expert];
#pragma unroll
      for (int h = 0; h < 2; h++)
        if (row + 8 * h < b)
#pragma unroll
          for (int n = 0; n < COLUMNS / 8; n++)
            if (column + n * 8 < a) {
              float2 pair = {c[4 * n + 2 * h], c[4 * n + 2 * h + 1]};
              *(float2*)(out + (i64)(row + 8 * h) * a + column + n * 8) = pair;
            }
    }
  }
}

RAGGED_KERNEL raggedWeightGradient(const char* x, const char* dy, const int* counts, float* const* outs, int E, int a,
                                   int b, int stages) {
  extern __shared__ __align__(1024) char memory[];
  weightGradient<256>(memory, x, dy, counts, outs, E, a, b, stages);
}

// For matrices of too few tiles to fill a GPU.
RAGGED_KERNEL raggedWeightGradientNarrow(const char* x, const char* dy, const int* counts, float* const* outs, int E,
                                         int a, int b, int stages) {
  extern __shared__ __align__(1024) char memory[];
  weightGradient<128>(memory, x, dy, counts, outs, E, a, b, stages);
}
