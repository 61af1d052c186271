// Element by element: arithmetic with broadcasting, activations and their slopes, gated units, copies and fills.

// Codes of `binary`.
#define ADD 0
#define SUB 1
#define MUL 2

// out[d0,d1,d2,d3] = a op b. A stride of 0 repeats an operand along an axis.
KERNEL binary(const A* a, const A* b, A* out, int op, i64 n, int d1, int d2, int d3, int a0, int a1, int a2, int a3,
              int b0, int b1, int b2, int b3) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
    i64 rest = i;
    int i3 = (int)(rest % d3);
    rest /= d3;
    int i2 = (int)(rest % d2);
    rest /= d2;
    int i1 = (int)(rest % d1);
    i64 i0 = rest / d1;
    float x = load(a, i0 * a0 + (i64)i1 * a1 + (i64)i2 * a2 + (i64)i3 * a3);
    float y = load(b, i0 * b0 + (i64)i1 * b1 + (i64)i2 * b2 + (i64)i3 * b3);
    store(out, i, op == ADD ? x + y : op == SUB ? x - y : x * y);
  }
}

DEVICE float combined(int op, float x, float y) { return op == ADD ? x + y : op == SUB ? x - y : x * y; }

// Both operands have the output's shape. `out` may be one of them.
KERNEL binarySame(const A* a, const A* b, A* out, int op, i64 n) {
  overElements(
      n,
      [&](i64 i) {
        float x[8], y[8];
        load8(a, i, x);
        load8(b, i, y);
        for (int j = 0; j < 8; j++) x[j] = combined(op, x[j], y[j]);
        store8(out, i, x);
      },
      [&](i64 i) { store(out, i, combined(op, load(a, i), load(b, i))); });
}

// Codes of `unary` and `unaryGrad`.
#define SCALE 0
#define SIGMOID 1
#define TANH 2
#define CLAMP 3
#define SILU 4
#define GELU 5
#define GELU_TANH 6
#define RELU 7
#define RELU2 8
#define XIELU_TAIL 9
#define SOFTPLUS 10

#define ROOT_2_OVER_PI 0.7978845608028654f
#define ROOT_HALF 0.7071067811865476f
#define ROOT_2_PI 2.5066282746310002f
#define CUBIC 0.044715f
#define XIELU_EPS -1e-6f

// `low` is also the factor of SCALE.
DEVICE float applied(int op, float x, float low, float high) {
  switch (op) {
    case SCALE: return x * low;
    case SIGMOID: return sigmoid(x);
    case TANH: return tanhf(x);
    // As min and max do it, but for what is not a number, which stays.
    case CLAMP: return x < low ? low : x > high ? high : x;
    case SILU: return x * sigmoid(x);
    case GELU: return 0.5f * x * (1.0f + erff(x * ROOT_HALF));
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
    case RELU: return x > 0.0f ? x : 0.0f;
    case XIELU_TAIL: return x > 0.0f ? 0.0f : expm1f(fminf(x, XIELU_EPS)) - x;
    case SOFTPLUS: return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    default: return x > 0.0f ? x * x : 0.0f;
  }
}

DEVICE float slope(int op, float x, float low, float high) {
  switch (op) {
    case CLAMP: return x >= low && x <= high ? 1.0f : 0.0f;
    case SILU: {
      float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case GELU: return 0.5f * (1.0f + erff(x * ROOT_HALF)) + x * expf(-0.5f * x * x) / ROOT_2_PI;
    case GELU_TANH: {
      float t = tanhf(ROOT_2_OVER_PI * (x + CUBIC * x * x * x));
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
    }
    case RELU: return x > 0.0f ? 1.0f : 0.0f;
    case XIELU_TAIL: return x > 0.0f ? 0.0f : x < XIELU_EPS ? expm1f(x) : -1.0f;
    case SOFTPLUS: return sigmoid(x);
    default: return x > 0.0f ? 2.0f * x : 0.0f;
  }
}

KERNEL unary(const A* x, A* out, int op, i64 n, float low, float high) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)
    store(out, i, applied(op, load(x, i), low, high));
}

KERNEL unaryGrad(const A* x, const A* dy, A* dx, int op, i64 n, float low, float high) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)
    store(dx, i, slope(op, load(x, i), low, high) * load(dy, i));
}

KERNEL toFloat(const int* x, float* out, i64 n) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)
    out[i] = (float)x[i];
}

// silu(gate) * up
KERNEL swiglu(const A* gate, const A* up, A* out, i64 n) {
  overElements(
      n,
      [&](i64 i) {
        float g[8], u[8];
        load8(gate, i, g);
        load8(up, i, u);
        for (int j = 0; j < 8; j++) g[j] = g[j] * sigmoid(g[j]) * u[j];
        store8(out, i, g);
      },
      [&](i64 i) {
        float g = load(gate, i);
        store(out, i, g * sigmoid(g) * load(up, i));
      });
}

// From gate, up and the output's gradient to the gradients of gate (in g) and up (in u).
DEVICE void swigluSlopes(float& g, float& u, float d) {
  float s = sigmoid(g), gate = g;
  g = d * u * s * (1.0f + gate * (1.0f - s));
  u = d * gate * s;
}

// The outputs may take the places of gate, up or dh.
KERNEL swigluGrad(const A* gate, const A* up, const A* dh, A* dgate, A* dup, i64 n) {
  overElements(
      n,
      [&](i64 i) {
        float g[8], u[8], d[8];
        load8(gate, i, g);
        load8(up, i, u);
        load8(dh, i, d);
        for (int j = 0; j < 8; j++) swigluSlopes(g[j], u[j], d[j]);
        store8(dgate, i, g);
        store8(dup, i, u);
      },
      [&](i64 i) {
        float g = load(gate, i), u = load(up, i);
        swigluSlopes(g, u, load(dh, i));
        store(dgate, i, g);
        store(dup, i, u);
      });
}

// Calls `eight` with row and column of each eight elements of [rows, size] that fall to this thread; size is a multiple
// of 8.
template <class Eight>
DEVICE void overRows(int rows, int size, Eight eight) {
  u32 perRow = size / 8, n = (u32)rows * perRow;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    u32 row = i / perRow;
    eight((i64)row, (int)(i - row * perRow) * 8);
  }
}

// `swiglu` of rows that lie apart: those of gate `gateStride` elements, and so on.
KERNEL swigluRows(const A* gate, const A* up, A* out, int rows, int size, int gateStride, int upStride) {
  takeTurn();
  overRows(rows, size, [&](i64 row, int column) {
    float g[8], u[8];
    load8(gate, row * gateStride + column, g);
    load8(up, row * upStride + column, u);
    for (int j = 0; j < 8; j++) g[j] = g[j] * sigmoid(g[j]) * u[j];
    store8(out, row * size + column, g);
  });
}

KERNEL swigluGradRows(const A* gate, const A* up, const A* dh, A* dgate, A* dup, int rows, int size, int gateStride,
                      int upStride, int dgateStride, int dupStride) {
  overRows(rows, size, [&](i64 row, int column) {
    float g[8], u[8], d[8];
    load8(gate, row * gateStride + column, g);
    load8(up, row * upStride + column, u);
    load8(dh, row * size + column, d);
    for (int j = 0; j < 8; j++) swigluSlopes(g[j], u[j], d[j]);
    store8(dgate, row * dgateStride + column, g);
    store8(dup, row * dupStride + column, u);
  });
}

// Rows of `size` elements from one stride to another.
KERNEL copyRows(const A* x, A* out, int rows, int size, int from, int to) {
  if (size % 8 == 0 && from % 8 == 0 && to % 8 == 0) {
    overRows(rows, size, [&](i64 row, int column) {
      float v[8];
      load8(x, row * from + column, v);
      store8(out, row * to + column, v);
    });
    return;
  }
  i64 n = (i64)rows * size;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)
    out[i / size * to + i % size] = x[i / size * from + i % size];
}

// Words of 4 bytes.
KERNEL copyWords(const u32* x, u32* out, i64 n) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) out[i] = x[i];
}

KERNEL fillWords(u32* out, u32 word, i64 n) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) out[i] = word;
}

KERNEL toBf16(const float* x, bf16* out, i64 n) {
  overElements(
      n,
      [&](i64 i) {
        float v[8];
        load8(x, i, v);
        store8(out, i, v);
      },
      [&](i64 i) { store(out, i, x[i]); });
}

// The same for many arrays of n numbers each; array blockIdx.y.
KERNEL toBf16Many(const float* const* x, bf16* const* out, i64 n) {
  const float* from = x[blockIdx.y];
  bf16* to = out[blockIdx.y];
  overElements(
      n,
      [&](i64 i) {
        float v[8];
        load8(from, i, v);
        store8(to, i, v);
      },
      [&](i64 i) { store(to, i, from[i]); });
}

KERNEL fromBf16(const bf16* x, float* out, i64 n) {
  overElements(
      n,
      [&](i64 i) {
        float v[8];
        load8(x, i, v);
        store8(out, i, v);
      },
      [&](i64 i) { out[i] = load(x, i); });
}

// x [rows, size] in three parts, the number nearest to it in bf16 and twice that nearest to what is left, whose sum it
// is. Element (r, i) of the part at place p goes to r * rowStride + p * partStride + i; hexadecimal digit p of `which`
// says which part it is.
KERNEL splitFloats(const float* x, bf16* out, i64 n, int size, i64 rowStride, i64 partStride, int which) {
  for (i64 at = blockIdx.x * (i64)blockDim.x + threadIdx.x; at < n; at += (i64)gridDim.x * blockDim.x) {
    bf16 parts[3];
    float left = x[at];
    for (int p = 0; p < 3; p++) {
      store(parts, p, left);
      left -= load(parts, p);
    }
    i64 to = at / size * rowStride + at % size;
    for (int p = 0; p < 3; p++) out[to + p * partStride] = parts[(which >> (4 * p)) & 15];
  }
}

// out [rows, size] = sums of three matrices that lie as those of `splitFloats`, the last one being the smallest.
KERNEL joinParts(const float* x, float* out, i64 n, int size, i64 rowStride, i64 partStride) {
  for (i64 at = blockIdx.x * (i64)blockDim.x + threadIdx.x; at < n; at += (i64)gridDim.x * blockDim.x) {
    const float* from = x + at / size * rowStride + at % size;
    out[at] = from[0] + (from[partStride] + from[2 * partStride]);
  }
}
