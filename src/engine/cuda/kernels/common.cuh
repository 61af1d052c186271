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
