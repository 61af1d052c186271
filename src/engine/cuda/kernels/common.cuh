// What all kernels share. It stands before each .cu file when that is compiled; nothing is included.
//
// A is the element type of activations: float, or bf16 where a kernel is compiled with -DA=bf16. All arithmetic is in
// float. Every sum has a fixed order, so that equal inputs give equal bits; there are no floating-point atomics.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

struct bf16 {
  u16 bits;
};

#ifndef A
#define A float
#endif

DEVICE float load(const float* p, i64 i) { return p[i]; }
DEVICE float load(const bf16* p, i64 i) { return __uint_as_float((u32)p[i].bits << 16); }
DEVICE void store(float* p, i64 i, float x) { p[i] = x; }
// Rounds to nearest, ties to even; what is not a number stays one.
DEVICE void store(bf16* p, i64 i, float x) {
  u32 bits = __float_as_uint(x);
  p[i].bits = x != x ? 0x7fc0 : (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

DEVICE float minusInfinity() { return __uint_as_float(0xff800000u); }
// A score that a soft cap limits; a cap of 0 caps nothing.
DEVICE float capped(float score, float cap) { return cap > 0.0f ? cap * tanhf(score / cap) : score; }
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE float warpSum(float x) {
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

DEVICE float warpMax(float x) {
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Sum over a block; every thread gets it. `scratch` holds 32 floats and may be used again at once.
DEVICE float blockSum(float x, float* scratch) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
  x = warpSum(x);
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warpSum(lane < warps ? scratch[lane] : 0.0f);
}

DEVICE float blockMax(float x, float* scratch) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
  x = warpMax(x);
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warpMax(lane < warps ? scratch[lane] : minusInfinity());
}

// Sum of doubles over a block, for sums of very many numbers.
DEVICE double blockSumDouble(double x, double* scratch) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = lane < warps ? scratch[lane] : 0.0;
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Tensor cores by mma.sync, from compute capability 8.0 on. The emulation on the CPU has functions of its own.
#ifndef EMULATED
DEVICE u32 sharedAddress(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Four matrices of 8 by 8; lane l names row l % 8 of matrix l / 8, and gets of each matrix the elements
// (l / 4, l % 4 * 2 and the next), or with `Transposed` those of the transposed matrix.
DEVICE void loadMatrices(u32* r, const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row)));
}
DEVICE void loadMatricesTransposed(u32* r, const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row)));
}

// c [16, 8] += a [16, 16] b [16, 8]
DEVICE void multiplyAdd(float* c, const u32* a, u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers as bf16, the first in the lower half.
DEVICE u32 packed(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// 2^x, as fast as the GPU has it.
DEVICE float power2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(r) : "f"(x));
  return r;
}

// 16 bytes from device memory to shared memory without waiting; zeros where `live` is false.
DEVICE void copyAsync(bf16* to, const bf16* from, bool live) {
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(sharedAddress(to)), "l"(from), "r"(live ? 16 : 0));
}
DEVICE void commitCopies() { asm volatile("cp.async.commit_group;"); }
// Waits until all but the last N groups of copies have arrived.
template <int N>
DEVICE void waitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N));
}
#endif

// A tile of rows of W elements in shared memory; chunks of 8 elements are exchanged so that matrices load without
// conflicts between banks.
template <int W>
DEVICE bf16* chunkAt(bf16* tile, int row, int chunk) {
  return tile + row * W + ((chunk ^ (row & 7)) << 3);
}

// Eight neighbouring elements at a time, from a multiple of 8 on: as few accesses to memory as there can be.
DEVICE void load8(const float* p, i64 i, float* x) {
  const float4* from = (const float4*)(p + i);
  float4 a = from[0], b = from[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
DEVICE void load8(const bf16* p, i64 i, float* x) {
  uint4 w = *(const uint4*)(p + i);
  u32 words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int j = 0; j < 4; j++) {
    x[2 * j] = __uint_as_float(words[j] << 16);
    x[2 * j + 1] = __uint_as_float(words[j] & 0xffff0000u);
  }
}
DEVICE void store8(float* p, i64 i, const float* x) {
  float4* to = (float4*)(p + i);
  float4 a = {x[0], x[1], x[2], x[3]}, b = {x[4], x[5], x[6], x[7]};
  to[0] = a;
  to[1] = b;
}
DEVICE void store8(bf16* p, i64 i, const float* x) {
  uint4 w = {packed(x[0], x[1]), packed(x[2], x[3]), packed(x[4], x[5]), packed(x[6], x[7])};
  *(uint4*)(p + i) = w;
}

// Calls `eight` with each multiple of 8 below n that falls to this thread, or `one` with each number where n is none.
template <class Eight, class One>
DEVICE void overElements(i64 n, Eight eight, One one) {
  i64 first = blockIdx.x * (i64)blockDim.x + threadIdx.x, step = (i64)gridDim.x * blockDim.x;
  if (n % 8 == 0)
    for (i64 i = first * 8; i < n; i += step * 8) eight(i);
  else
    for (i64 i = first; i < n; i += step) one(i);
}

// Launches of a step of decoding may begin before the one before them has ended: they let the next one begin in their
// turn, and wait before they touch anything but weights. Elsewhere both do nothing.
DEVICE void letNextBegin() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
DEVICE void waitForLast() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void takeTurn() {
  letNextBegin();
  waitForLast();
}
