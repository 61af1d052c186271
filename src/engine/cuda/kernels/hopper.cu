// Products of each expert's rows in bfloat16 by wgmma and TMA, for compute capability 9.0. A block lives as long as the
// kernel and takes tile after tile: one warpgroup brings operands into a ring of stages, two multiply, 64 rows of a tile
// of 128 by 256 each. Results leave through shared memory by bulk copies of rows, while the next tile is at work.
//
// `maps` are tensor maps in device memory (see `Argument` in lowering/launches.ts), one for each expert's weights.

#define HOPPER_THREADS 384
// Rows and columns of a tile, and the elements of a step.
#define TILE_ROWS 128
#define TILE_COLUMNS 256
#define DEPTH 64
// Results are written in pieces of so many columns, whose rows in shared memory are padded against conflicts of banks.
#define PIECE 128
#define PIECE_ROW (PIECE + 8)
#define LEFT_BYTES (TILE_ROWS * DEPTH * 2)
#define STAGE_BYTES (LEFT_BYTES + TILE_COLUMNS * DEPTH * 2)
#define MAP_BYTES 128

struct Ring {
  int stage;
  u32 phase;
};

template <int STAGES>
DEVICE void advance(Ring& ring) {
  if (++ring.stage == STAGES) {
    ring.stage = 0;
    ring.phase ^= 1;
  }
}

// x as bf16 holds it.
DEVICE float rounded(float x) { return __uint_as_float(packed(0.0f, x) & 0xffff0000u); }

DEVICE void initBarrier(u64* barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0],%1;" ::"r"(sharedAddress(barrier)), "r"(count) : "memory");
}
DEVICE void arrive(u64* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _,[%0];" ::"r"(sharedAddress(barrier)) : "memory");
}
// Arrives, and makes the barrier wait for so many bytes of copies, too.
DEVICE void expectBytes(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _,[%0],%1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}
DEVICE bool passed(u64* barrier, u32 phase) {
  u32 done;
  asm volatile("{.reg .pred p;mbarrier.try_wait.parity.shared::cta.b64 p,[%1],%2;selp.u32 %0,1,0,p;}"
               : "=r"(done)
               : "r"(sharedAddress(barrier)), "r"(phase)
               : "memory");
  return done;
}
DEVICE void waitFor(u64* barrier, u32 phase) {
  while (!passed(barrier, phase)) {
  }
}

// The box of a tensor map at (column, row) into shared memory.
DEVICE void loadBox(void* to, const char* map, int column, int row, u64* barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1,{%3,%4}],[%2];" ::"r"(
                   sharedAddress(to)),
               "l"(map), "r"(sharedAddress(barrier)), "r"(column), "r"(row)
               : "memory");
}
// Makes what the host has written as tensor maps visible to copies; a barrier of the block has to follow.
DEVICE void acquireMaps(const char* maps, int count) {
  for (int i = threadIdx.x; i < count; i += HOPPER_THREADS)
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0],128;" ::"l"(maps + i * MAP_BYTES) : "memory");
}
// Bytes of shared memory to device memory, without waiting.
DEVICE void storeBytes(void* to, const void* from, u32 bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0],[%1],%2;" ::"l"(to), "r"(sharedAddress(from)), "r"(bytes)
               : "memory");
}
DEVICE void commitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until all but the last N groups of stores have read their shared memory.
template <int N>
DEVICE void waitStores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
DEVICE void waitAllStores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// Between ordinary accesses to shared memory and those of copies and of wgmma.
DEVICE void fenceShared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void syncConsumers() { asm volatile("bar.sync 1,256;" ::: "memory"); }

template <int N>
DEVICE void moreRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
DEVICE void fewerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

DEVICE void beginWgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void commitWgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
DEVICE void waitWgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// What wgmma is told of an operand in shared memory: rows of 128 bytes whose pieces of 16 are exchanged as TMA does it
// with a swizzle of 128 bytes; eight rows follow each other, and `wide` bytes lie between 64 elements and the next 64
// where the operand lies along its other side.
DEVICE u64 operandAt(const void* at, u32 wide) {
  return (u64)((sharedAddress(at) & 0x3ffff) >> 4) | (u64)(wide >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// Four matrices of 8 by 8 to shared memory; lane l names row l % 8 of matrix l / 8.
DEVICE void storeMatrices(const bf16* row, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0],{%1,%2,%3,%4};" ::"r"(sharedAddress(row)), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}

#define R8(I)                                                                                                   \
  "+f"(c[I]), "+f"(c[I + 1]), "+f"(c[I + 2]), "+f"(c[I + 3]), "+f"(c[I + 4]), "+f"(c[I + 5]), "+f"(c[I + 6]), \
      "+f"(c[I + 7])

// c [64, 256] = a [64, 16] b [16, 256], or c += it where `more` is not 0. TA, TB: the operand lies along its other side.
template <int TA, int TB>
DEVICE void wgmma256(float* c, u64 a, u64 b, int more) {
  asm volatile("{.reg .pred p;setp.ne.b32 p,%130,0;"
               "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
               "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
               "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
               "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
               "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
               "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
               "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
               "},%128,%129,p,1,1,%131,%132;}"
               : R8(0), R8(8), R8(16), R8(24), R8(32), R8(40), R8(48), R8(56), R8(64), R8(72), R8(80), R8(88), R8(96), R8(104), R8(112), R8(120)
               : "l"(a), "l"(b), "r"(more), "n"(TA), "n"(TB));
}

// Where experts' rows and tiles of rows begin; E + 1 numbers each, and what lies behind the last expert is nobody's.
struct Groups {
  int* rows;
  int* tiles;
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

template <int STAGES>
struct Shared {
  char* stages;
  u64 *full, *empty;
  Groups groups;
  bf16* pieces;
};

template <int STAGES, int SLOTS>
DEVICE Shared<STAGES> shareOut(char* memory, int E) {
  Shared<STAGES> s;
  s.stages = memory;
  s.pieces = (bf16*)(memory + STAGES * STAGE_BYTES);
  s.full = (u64*)(s.pieces + 8 * SLOTS * 16 * PIECE_ROW);
  s.empty = s.full + STAGES;
  s.groups.rows = (int*)(s.empty + STAGES);
  s.groups.tiles = s.groups.rows + E + 1;
  s.groups.E = E;
  return s;
}

template <int STAGES>
DEVICE void prepare(Shared<STAGES> s, const int* counts, int arrivals) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      initBarrier(s.full + i, arrivals);
      initBarrier(s.empty + i, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  findGroups(s.groups, counts);
}

// Multiplies the stages of one tile. TA, TB: the operand's other side is contiguous. `before` is called when a stage is
// there and has not been read.
template <int STAGES, int TA, int TB, class Before>
DEVICE void multiplyTile(float* c, Shared<STAGES> s, Ring& ring, int steps, int group, Before before) {
  bool first = (threadIdx.x & 127) == 0;
  int previous = -1;
  for (int step = 0; step < steps; step++) {
    waitFor(s.full + ring.stage, ring.phase);
    before(step, s.stages + ring.stage * STAGE_BYTES);
    char* at = s.stages + ring.stage * STAGE_BYTES;
    u64 left = operandAt(at + group * (LEFT_BYTES / 2), 0), right = operandAt(at + LEFT_BYTES, 64 * DEPTH * 2);
    beginWgmma();
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++)
      wgmma256<TA, TB>(c, left + k * (TA ? 2048 >> 4 : 32 >> 4), right + k * (TB ? 2048 >> 4 : 32 >> 4), step + k);
    commitWgmma();
    waitWgmma<1>();
    if (previous >= 0 && first) arrive(s.empty + previous);
    previous = ring.stage;
    advance<STAGES>(ring);
  }
  waitWgmma<0>();
  if (previous >= 0 && first) arrive(s.empty + previous);
}

// 16 rows of a warp, 128 columns, from registers to rows [row, ..) of out [.., width] from `column` on.
template <int SLOTS>
DEVICE void storePiece(const float* c, bf16* pieces, int& slot, bf16* out, int row, int end, int column, int width,
                       int lane) {
  bf16* own = pieces + slot * 16 * PIECE_ROW;
  slot = slot + 1 == SLOTS ? 0 : slot + 1;
  waitStores<SLOTS - 1>();
  __syncwarp();
#pragma unroll
  for (int j = 0; j < PIECE / 8; j += 2)
    storeMatrices(own + (lane & 15) * PIECE_ROW + (j + (lane >> 4)) * 8, packed(c[4 * j], c[4 * j + 1]),
                  packed(c[4 * j + 2], c[4 * j + 3]), packed(c[4 * j + 4], c[4 * j + 5]),
                  packed(c[4 * j + 6], c[4 * j + 7]));
  fenceShared();
  __syncwarp();
  if (lane < 16 && row + lane < end && column < width)
    storeBytes(out + (i64)(row + lane) * width + column, own + lane * PIECE_ROW, min(PIECE, width - column) * 2);
  commitStores();
}

// Zeros in 16 rows of out [.., width] from `row` on, `columns` (a multiple of 8) of them.
DEVICE void storeZeros(bf16* out, int row, int end, int column, int columns, int width, int lane) {
  uint4 nothing = {0, 0, 0, 0};
  for (int r = row; r < min(end, row + 16); r++)
    for (int i = lane * 8; i < columns; i += 256) *(uint4*)(out + (i64)r * width + column + i) = nothing;
}

#define PLAIN 0
#define TURNED 1
#define GATED 2

// x [R, a] -> out [R, b], and with `y` out += y [R, a] times other weights. PLAIN: weights [b, a]; TURNED: [a, b];
// GATED: two products of x, gates and ups, and the gated unit of both.
template <int MODE, int STAGES, int SLOTS, bool GATHER>
DEVICE void rows(char* memory, const char* x, const char* y, const bf16* from, const int* order, const char* weights,
                 const char* others, const int* counts, bf16* out, bf16* ups, bf16* units, int R, int E, int a, int b,
                 int K) {
  constexpr int WIDTH = MODE == GATED ? TILE_COLUMNS / 2 : TILE_COLUMNS;
  Shared<STAGES> s = shareOut<STAGES, SLOTS>(memory, E);
  bool twice = MODE != GATED && y != 0;
  if (!GATHER) acquireMaps(x, 1);
  if (twice) acquireMaps(y, 1);
  acquireMaps(weights, E);
  if (twice || MODE == GATED) acquireMaps(others, E);
  prepare(s, counts, GATHER ? 129 : 1);
  int columns = (b + WIDTH - 1) / WIDTH, depth = (a + DEPTH - 1) / DEPTH;
  int steps = twice ? 2 * depth : depth;
  Walk walk = {(int)blockIdx.x, 0, 0, 0, 0};
  Ring ring = {0, 0};
  if (threadIdx.x < 128) {
    fewerRegisters<GATHER ? 56 : 40>();
    bool leader = threadIdx.x == 0;
    for (; (GATHER || leader) && enter(walk, s.groups, R, columns); walk.tile += gridDim.x) {
      if (walk.expert == E) continue;
      const char* left = x;
      const char* right = weights + walk.expert * MAP_BYTES;
      const char* second = others + walk.expert * MAP_BYTES;
      int column = walk.column * WIDTH;
      const bf16* sources[8];
      if (GATHER)
#pragma unroll
        for (int i = 0; i < 8; i++) {
          int row = walk.first + i * 16 + (threadIdx.x >> 3);
          sources[i] = row < walk.end ? from + (i64)(order[row] / K) * a + (threadIdx.x & 7) * 8 : 0;
        }
      for (int step = 0; step < steps; step++) {
        if (step == depth) {
          left = y;
          right = second;
        }
        int k = (step >= depth ? step - depth : step) * DEPTH;
        u64* full = s.full + ring.stage;
        waitFor(s.empty + ring.stage, ring.phase ^ 1);
        char* at = s.stages + ring.stage * STAGE_BYTES;
        if (leader) {
          expectBytes(full, GATHER ? STAGE_BYTES - LEFT_BYTES : STAGE_BYTES);
          if (!GATHER) loadBox(at, left, k, walk.first, full);
          char* to = at + LEFT_BYTES;
          if (MODE == PLAIN) loadBox(to, right, k, column, full);
          if (MODE == TURNED)
            for (int n = 0; n < 4; n++) loadBox(to + n * 64 * DEPTH * 2, right, column + n * 64, k, full);
          if (MODE == GATED) {
            loadBox(to, right, k, column, full);
            loadBox(to + WIDTH * DEPTH * 2, second, k, column, full);
          }
        }
        if (GATHER) {
#pragma unroll
          for (int i = 0; i < 8; i++) {
            bool live = sources[i] != 0 && k + (threadIdx.x & 7) * 8 < a;
            copyAsync(chunkAt<DEPTH>((bf16*)at, i * 16 + (threadIdx.x >> 3), threadIdx.x & 7),
                      live ? sources[i] + k : from, live);
          }
          asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(sharedAddress(full)) : "memory");
        }
        advance<STAGES>(ring);
      }
    }
  } else {
  moreRegisters<GATHER ? 224 : 232>();
  int lane = threadIdx.x & 31, group = (threadIdx.x >> 7) - 1, warp = (threadIdx.x >> 5) - 4, slot = 0;
  bf16* pieces = s.pieces + warp * SLOTS * 16 * PIECE_ROW;
  float c[TILE_COLUMNS / 2];
  for (; enter(walk, s.groups, R, columns); walk.tile += gridDim.x) {
    int row = walk.first + warp * 16, column = walk.column * WIDTH;
    if (walk.expert == E) {
      storeZeros(out, row, walk.end, column, min(WIDTH, b - column), b, lane);
      if (MODE == GATED) {
        storeZeros(ups, row, walk.end, column, min(WIDTH, b - column), b, lane);
        storeZeros(units, row, walk.end, column, min(WIDTH, b - column), b, lane);
      }
      continue;
    }
    multiplyTile<STAGES, 0, MODE == TURNED>(c, s, ring, steps, group, [&](int, char*) {
      if (GATHER) fenceShared();
    });
    if (MODE == GATED) {
      storePiece<SLOTS>(c, pieces, slot, out, row, walk.end, column, b, lane);
      storePiece<SLOTS>(c + 64, pieces, slot, ups, row, walk.end, column, b, lane);
#pragma unroll
      for (int i = 0; i < 64; i++) {
        // As if both had been read back in bfloat16.
        float g = rounded(c[i]), u = rounded(c[i + 64]);
        c[i] = g * __fdividef(u, 1.0f + power2(-1.4426950408889634f * g));
      }
      storePiece<SLOTS>(c, pieces, slot, units, row, walk.end, column, b, lane);
    } else {
      storePiece<SLOTS>(c, pieces, slot, out, row, walk.end, column, b, lane);
      storePiece<SLOTS>(c + 64, pieces, slot, out, row, walk.end, column + PIECE, b, lane);
    }
  }
  waitAllStores();
  }
}

// outs[e] [b, a] = dy_e^T x_e in float, zeros for an expert without rows.
template <int STAGES>
DEVICE void weightGradient(char* memory, const char* x, const char* dy, const int* counts, float* const* outs, int E,
                           int a, int b) {
  Shared<STAGES> s = shareOut<STAGES, 0>(memory, E);
  acquireMaps(x, 1);
  acquireMaps(dy, 1);
  prepare(s, counts, 1);
  int across = (a + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (b + TILE_ROWS - 1) / TILE_ROWS;
  int each = across * down, tiles = each * E;
  Ring ring = {0, 0};
  if (threadIdx.x < 128) {
    fewerRegisters<40>();
    for (int tile = blockIdx.x; threadIdx.x == 0 && tile < tiles; tile += gridDim.x) {
      int expert = tile / each, place = tile - expert * each, row = place / across * TILE_ROWS;
      int column = place % across * TILE_COLUMNS, end = s.groups.rows[expert + 1];
      for (int first = s.groups.rows[expert]; first < end; first += DEPTH) {
        u64* full = s.full + ring.stage;
        waitFor(s.empty + ring.stage, ring.phase ^ 1);
        char* at = s.stages + ring.stage * STAGE_BYTES;
        expectBytes(full, STAGE_BYTES);
        for (int m = 0; m < 2; m++) loadBox(at + m * 64 * DEPTH * 2, dy, row + m * 64, first, full);
        for (int n = 0; n < 4; n++) loadBox(at + LEFT_BYTES + n * 64 * DEPTH * 2, x, column + n * 64, first, full);
        advance<STAGES>(ring);
      }
    }
  } else {
  moreRegisters<232>();
  int lane = threadIdx.x & 31, group = (threadIdx.x >> 7) - 1, warp = (threadIdx.x >> 5) & 3, t = threadIdx.x - 128;
  float c[TILE_COLUMNS / 2];
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int expert = tile / each, place = tile - expert * each, first = s.groups.rows[expert];
    int count = s.groups.rows[expert + 1] - first;
    if (count == 0)
#pragma unroll
      for (int i = 0; i < TILE_COLUMNS / 2; i++) c[i] = 0.0f;
    // Rows behind the expert's last one are another's.
    multiplyTile<STAGES, 1, 1>(c, s, ring, (count + DEPTH - 1) / DEPTH, group, [&](int step, char* at) {
      int live = count - step * DEPTH;
      if (live >= DEPTH) return;
      uint4 nothing = {0, 0, 0, 0};
      for (int i = t; i < (STAGE_BYTES / (DEPTH * 128)) * (DEPTH - live) * 8; i += 256) {
        int box = i / ((DEPTH - live) * 8), chunk = i - box * (DEPTH - live) * 8;
        *(uint4*)(at + box * DEPTH * 128 + live * 128 + chunk * 16) = nothing;
      }
      fenceShared();
      syncConsumers();
    });
    int row = place / across * TILE_ROWS + group * 64 + warp * 16 + (lane >> 2);
    int column = place % across * TILE_COLUMNS + (lane & 3) * 2;
    float* out = outs[expert];
#pragma unroll
    for (int h = 0; h < 2; h++)
      if (row + 8 * h < b)
#pragma unroll
        for (int n = 0; n < TILE_COLUMNS / 8; n++)
          if (column + n * 8 < a) {
            float2 pair = {c[4 * n + 2 * h], c[4 * n + 2 * h + 1]};
            *(float2*)(out + (i64)(row + 8 * h) * a + column + n * 8) = pair;
          }
  }
  }
}
