// What stands before a kernel's source when it is compiled for the CPU: CUDA's words and built-in functions, and a
// launcher that runs the threads of one block as fibers, one after the other between barriers. Slow, exact in what a
// barrier means, and blind to everything else that a GPU does at once.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
using std::isfinite;
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __grid_constant__

struct EmuDim { int x, y, z; };
struct EmuWarp { uint64_t slots[32]; int arrived, generation, alive; };
struct EmuThread { void* stackPointer; EmuDim id; int warp, lane; bool done; };
static EmuThread* emuThreads; static EmuWarp* emuWarps; static EmuThread* emuNow;
static EmuDim emuBlock, emuGrid, emuBlockDim; static void* emuScheduler; static char* emuShared;
static int emuArrived, emuGeneration, emuAlive;
#define threadIdx (emuNow->id)
#define blockIdx emuBlock
#define blockDim emuBlockDim
#define gridDim emuGrid

extern "C" void emuSwitch(void** save, void* load);
asm(R"(
.text
.globl emuSwitch
.hidden emuSwitch
emuSwitch:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret
)");
static __attribute__((noinline)) void emuYield() { EmuThread* me = emuNow; emuSwitch(&me->stackPointer, emuScheduler); }
static __attribute__((noinline)) void __syncthreads() {
  int generation = emuGeneration;
  if (++emuArrived == emuAlive) { emuArrived = 0; emuGeneration++; } else while (emuGeneration == generation) emuYield();
}
static int __syncthreads_or(int vote) {
  static int any; if (emuArrived == 0) any = 0;
  any |= vote != 0; __syncthreads(); int all = any; __syncthreads(); return all;
}
static __attribute__((noinline)) void __syncwarp(unsigned = ~0u) {
  EmuWarp& w = emuWarps[emuNow->warp]; int generation = w.generation;
  if (++w.arrived == w.alive) { w.arrived = 0; w.generation++; } else while (w.generation == generation) emuYield();
}
template <class T> static T emuExchange(T value, int from) {
  EmuWarp& w = emuWarps[emuNow->warp]; uint64_t bits = 0; memcpy(&bits, &value, sizeof(T));
  w.slots[emuNow->lane] = bits; __syncwarp();
  T result; memcpy(&result, &w.slots[from & 31], sizeof(T)); __syncwarp(); return result;
}
template <class T> static T __shfl_xor_sync(unsigned, T value, int mask) { return emuExchange(value, emuNow->lane ^ mask); }
template <class T> static T __shfl_sync(unsigned, T value, int from) { return emuExchange(value, from); }
static unsigned __match_any_sync(unsigned, int value) {
  EmuWarp& w = emuWarps[emuNow->warp]; w.slots[emuNow->lane] = (uint64_t)(int64_t)value; __syncwarp();
  unsigned same = 0; for (int i = 0; i < 32; i++) if (w.slots[i] == (uint64_t)(int64_t)value) same |= 1u << i;
  __syncwarp(); return same;
}
static bool __any_sync(unsigned, bool vote) {
  EmuWarp& w = emuWarps[emuNow->warp]; w.slots[emuNow->lane] = vote; __syncwarp();
  bool any = false; for (int i = 0; i < 32; i++) any |= w.slots[i] != 0;
  __syncwarp(); return any;
}
static void __threadfence() {}
static int __popc(unsigned x) { return __builtin_popcount(x); }
static float __uint_as_float(unsigned x) { float f; memcpy(&f, &x, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned x; memcpy(&x, &f, 4); return x; }
template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }
static int atomicAdd(int* p, int x) { int was = *p; *p += x; return was; }

#define EMULATED
struct bf16;
// Four matrices of 8 by 8 and products of them, as common.cuh describes them: lanes exchange rows and fragments.
struct EmuFragments { unsigned a[4], b[2]; };
static EmuFragments emuFragments[32][32];
static void emuMatrices(unsigned* r, const void* row, bool transposed) {
  EmuWarp& w = emuWarps[emuNow->warp]; int lane = emuNow->lane; w.slots[lane] = (uint64_t)row; __syncwarp();
  for (int m = 0; m < 4; m++) {
    auto at = [&](int y, int x) { return (unsigned)((const uint16_t*)w.slots[m * 8 + y])[x]; };
    int g = lane / 4, t = lane % 4 * 2;
    r[m] = transposed ? at(t, g) | at(t + 1, g) << 16 : at(g, t) | at(g, t + 1) << 16;
  }
  __syncwarp();
}
static void loadMatrices(unsigned* r, const bf16* row) { emuMatrices(r, row, false); }
static void loadMatricesTransposed(unsigned* r, const bf16* row) { emuMatrices(r, row, true); }
static float emuHalf(unsigned word, int high) { return __uint_as_float(high ? word & 0xffff0000u : word << 16); }
static void multiplyAdd(float* c, const unsigned* a, unsigned b0, unsigned b1) {
  EmuFragments* f = emuFragments[emuNow->warp]; int lane = emuNow->lane, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) f[lane].a[i] = a[i];
  f[lane].b[0] = b0; f[lane].b[1] = b1; __syncwarp();
  for (int e = 0; e < 4; e++) {
    int row = e / 2, column = t * 2 + e % 2; float sum = c[e];
    for (int k = 0; k < 16; k++)
      sum += emuHalf(f[g * 4 + k % 8 / 2].a[row + k / 8 * 2], k & 1) * emuHalf(f[column * 4 + k % 8 / 2].b[k / 8], k & 1);
    c[e] = sum;
  }
  __syncwarp();
}
static unsigned emuRounded(float x) { unsigned b = __float_as_uint(x); return x != x ? 0x7fc0 : ((b + 0x7fff + ((b >> 16) & 1)) >> 16) & 0xffff; }
static unsigned packed(float low, float high) { return emuRounded(low) | emuRounded(high) << 16; }
static void copyAsync(bf16* to, const bf16* from, bool live) { if (live) memcpy((void*)to, (const void*)from, 16); else memset((void*)to, 0, 16); }
static float power2(float x) { return exp2f(x); }
static void commitCopies() {}
template <int N> static void waitCopies() {}

typedef void (*EmuCall)(void**);
static EmuCall emuCall; static void** emuParameters;
static void emuEntry() {
  emuCall(emuParameters);
  EmuThread* me = emuNow; me->done = true;
  EmuWarp& w = emuWarps[me->warp];
  if (--w.alive > 0 && w.arrived == w.alive) { w.arrived = 0; w.generation++; }
  if (--emuAlive > 0 && emuArrived == emuAlive) { emuArrived = 0; emuGeneration++; }
  for (;;) emuYield();
}
extern "C" void emuLaunch(EmuCall call, const int* grid, const int* block, int shared, void** parameters) {
  const size_t stack = 64 << 10; int threads = block[0] * block[1] * block[2], warps = (threads + 31) / 32;
  static char* stacks = 0; if (!stacks) stacks = (char*)malloc(1024 * stack);
  emuThreads = (EmuThread*)malloc(sizeof(EmuThread) * threads); emuWarps = (EmuWarp*)malloc(sizeof(EmuWarp) * warps);
  emuShared = (char*)malloc(shared + 64); emuCall = call; emuParameters = parameters;
  emuGrid = {grid[0], grid[1], grid[2]}; emuBlockDim = {block[0], block[1], block[2]};
  for (int z = 0; z < grid[2]; z++) for (int y = 0; y < grid[1]; y++) for (int x = 0; x < grid[0]; x++) {
    emuBlock = {x, y, z}; emuAlive = threads; emuArrived = 0;
    memset(emuShared, 0xff, shared);
    for (int i = 0; i < warps; i++) { emuWarps[i].arrived = 0; emuWarps[i].alive = min(32, threads - 32 * i); }
    for (int i = 0; i < threads; i++) {
      void** top = (void**)(stacks + (i + 1) * stack) - 8;
      top[6] = (void*)emuEntry; top[7] = 0;
      emuThreads[i] = {top, {i % block[0], i / block[0] % block[1], i / block[0] / block[1]}, i / 32, i % 32, false};
    }
    // Threads take turns forwards, then backwards, so that a missing barrier shows in one of both.
    for (int left = threads, pass = 0; left > 0; pass++) {
      left = 0;
      for (int n = 0; n < threads; n++) {
        EmuThread& t = emuThreads[pass & 1 ? threads - 1 - n : n];
        if (t.done) continue;
        emuNow = &t; emuSwitch(&emuScheduler, t.stackPointer); if (!t.done) left++;
      }
    }
  }
  free(emuThreads); free(emuWarps); free(emuShared);
}
template <class... P, size_t... I> static void emuApply(void (*f)(P...), void** p, std::index_sequence<I...>) { f(*(P*)p[I]...); }
template <class... P> static void emuInvoke(void (*f)(P...), void** p) { emuApply(f, p, std::index_sequence_for<P...>()); }
template <class... P> static int emuCount(void (*)(P...)) { return sizeof...(P); }
