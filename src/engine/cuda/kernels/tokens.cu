// Embeddings, rotary positions, heads that are joined, documents within sequences.

// out[n] = table[ids[n]], the table in float; a block for each token.
KERNEL embedding(const float* table, const int* ids, A* out, int H) {
  const float* from = table + (i64)ids[blockIdx.x] * H;
  for (int i = threadIdx.x; i < H; i += blockDim.x) store(out, (i64)blockIdx.x * H + i, from[i]);
}

// The same of rows of activations.
KERNEL gatherRows(const A* x, const int* rows, A* out, int H) {
  const A* from = x + (i64)rows[blockIdx.x] * H;
  A* to = out + (i64)blockIdx.x * H;
  for (int i = threadIdx.x; i < H; i += blockDim.x) to[i] = from[i];
}

// First place of sorted keys [n] that is not below `key`.
DEVICE int lowerBound(const int* keys, int n, int key) {
  int low = 0, high = n;
  while (low < high) {
    int middle = (low + high) >> 1;
    if (keys[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Row v of the table's gradient is the sum of dy over the tokens with id v, in their order: `order` has the tokens
// sorted by id, stably, and `keys` their ids. A block for each row of the table.
KERNEL embeddingGrad(const int* keys, const int* order, const A* dy, float* out, int n, int H) {
  int first = lowerBound(keys, n, blockIdx.x), end = lowerBound(keys, n, blockIdx.x + 1);
  for (int i = threadIdx.x; i < H; i += blockDim.x) {
    float sum = 0.0f;
    for (int at = first; at < end; at++) sum += load(dy, (i64)order[at] * H + i);
    out[(i64)blockIdx.x * H + i] = sum;
  }
}

// x [N, heads * D]: pairs of `rotary` elements of each head, from `offset`, turn by the angles of their position,
// tables cos and sin [S, rotary / 2]; the others pass. A block for each token.
KERNEL rope(const A* x, const float* cosines, const float* sines, A* out, int S, int heads, int D, int offset,
            int rotary, int interleaved, int inverse) {
  i64 row = blockIdx.x;
  int half = rotary / 2, position = (int)(row % S), width = heads * D;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    int in = i % D - offset;
    float value = load(x, row * width + i);
    if (in >= 0 && in < rotary) {
      int pair = interleaved ? in >> 1 : in % half;
      int second = interleaved ? in & 1 : in >= half;
      int other = i + (interleaved ? (second ? -1 : 1) : (second ? -half : half));
      float c = cosines[(i64)position * half + pair], s = sines[(i64)position * half + pair];
      if (inverse) s = -s;
      value = value * c + (second ? s : -s) * load(x, row * width + other);
    }
    store(out, row * width + i, value);
  }
}

// `rope` of whole heads whose pairs are (i, i + D / 2), D a multiple of 16: a thread turns eight pairs at a time. Rows
// of x and of the result lie `from` and `to` elements apart.
KERNEL ropeHalves(const A* x, const float* cosines, const float* sines, A* out, int N, int S, int heads, int D,
                  int inverse, int from, int to) {
  int half = D / 2, eights = half / 8, perToken = heads * eights;
  i64 n = (i64)N * perToken;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
    int row = (int)(i / perToken), in = (int)(i % perToken), pair = in % eights * 8;
    i64 column = in / eights * D + pair, at = (i64)row * from + column, angle = (i64)(row % S) * half + pair;
    float a[8], b[8], c[8], s[8];
    load8(x, at, a);
    load8(x, at + half, b);
    load8(cosines, angle, c);
    load8(sines, angle, s);
    for (int j = 0; j < 8; j++) {
      float sine = inverse ? -s[j] : s[j], first = a[j] * c[j] - b[j] * sine;
      b[j] = b[j] * c[j] + a[j] * sine;
      a[j] = first;
    }
    store8(out, (i64)row * to + column, a);
    store8(out, (i64)row * to + column + half, b);
  }
}

// Rows of a part of a joint product's result, in units of 16 elements: where they are, where they go, and how far rows
// lie apart.
#define PART(n) const A *from##n, A *to##n, int fromStride##n, int toStride##n, int units##n

// Query and key (parts 0 and 1) turn as in `ropeHalves`, heads of D; part 2 is copied. A thread takes a unit at a time.
KERNEL ropeTogether(const float* cosines, const float* sines, PART(0), PART(1), PART(2), int N, int S, int D,
                    int inverse) {
  int half = D / 2, eights = half / 8;
  u32 perToken = units0 + units1 + units2, n = (u32)N * perToken;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    u32 row = i / perToken;
    int in = i - row * perToken;
    float a[8], b[8], c[8], s[8];
    if (in >= units0 + units1) {
      int column = (in - units0 - units1) * 16;
      load8(from2, (i64)row * fromStride2 + column, a);
      load8(from2, (i64)row * fromStride2 + column + 8, b);
      store8(to2, (i64)row * toStride2 + column, a);
      store8(to2, (i64)row * toStride2 + column + 8, b);
      continue;
    }
    bool key = in >= units0;
    if (key) in -= units0;
    const A* from = key ? from1 : from0;
    A* to = key ? to1 : to0;
    int pair = in % eights * 8, column = in / eights * D + pair;
    i64 at = (i64)row * (key ? fromStride1 : fromStride0) + column, angle = (i64)(row % S) * half + pair;
    load8(from, at, a);
    load8(from, at + half, b);
    load8(cosines, angle, c);
    load8(sines, angle, s);
    for (int j = 0; j < 8; j++) {
      float sine = inverse ? -s[j] : s[j], first = a[j] * c[j] - b[j] * sine;
      b[j] = b[j] * c[j] + a[j] * sine;
      a[j] = first;
    }
    at = (i64)row * (key ? toStride1 : toStride0) + column;
    store8(to, at, a);
    store8(to, at + half, b);
  }
}

// own [N, heads * a], shared [N, b] -> [N, heads * (a + b)]; a block for each token.
KERNEL joinHeads(const A* own, const A* shared, A* out, int heads, int a, int b) {
  i64 row = blockIdx.x;
  int width = heads * (a + b);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    int head = i / (a + b), in = i % (a + b);
    out[row * width + i] = in < a ? own[(row * heads + head) * a + in] : shared[row * b + in - a];
  }
}

KERNEL joinHeadsGrad(const A* dy, A* down, A* dshared, int heads, int a, int b) {
  i64 row = blockIdx.x;
  int width = a + b;
  for (int i = threadIdx.x; i < heads * a; i += blockDim.x)
    down[row * heads * a + i] = dy[(row * heads + i / a) * width + i % a];
  for (int i = threadIdx.x; i < b; i += blockDim.x) {
    float sum = 0.0f;
    for (int head = 0; head < heads; head++) sum += load(dy, (row * heads + head) * width + a + i);
    store(dshared, row * b + i, sum);
  }
}

// out[n] = how many tokens `end` stand before token n in its sequence; a thread for each sequence.
KERNEL segmentIds(const int* ids, int* out, int batch, int S, int end) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= batch) return;
  int segment = 0;
  for (i64 i = (i64)row * S; i < (i64)(row + 1) * S; i++) {
    out[i] = segment;
    segment += ids[i] == end;
  }
}

// out[n] = the place of token n within its document; a thread for each sequence.
KERNEL segmentPositions(const int* segments, int* out, int batch, int S) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= batch) return;
  int position = 0;
  for (i64 i = (i64)row * S; i < (i64)(row + 1) * S; i++) {
    position = i > (i64)row * S && segments[i - 1] == segments[i] ? position + 1 : 0;
    out[i] = position;
  }
}
