// Stable counting sort by small keys, in three launches: digitCounts, digitOffsets, digitScatter; or in one, digitTile.
// Experts are sorted in one pass; token ids, which may be large, digit by digit from the lowest.

// Items that one block of `digitCounts` and `digitScatter` takes.
#define TILE 1024

// counts [digits, blocks]: how many items of each tile have each digit, (key >> shift) % digits. Shared: digits ints.
KERNEL digitCounts(const int* keys, int* counts, int n, int shift, int digits) {
  extern __shared__ int own[];
  for (int d = threadIdx.x; d < digits; d += blockDim.x) own[d] = 0;
  __syncthreads();
  int first = blockIdx.x * TILE, end = min(n, first + TILE);
  for (int i = first + threadIdx.x; i < end; i += blockDim.x) atomicAdd(&own[(keys[i] >> shift) % digits], 1);
  __syncthreads();
  for (int d = threadIdx.x; d < digits; d += blockDim.x) counts[d * gridDim.x + blockIdx.x] = own[d];
}

// The sum of `own` over the threads of a block in front of this one; `sums` holds an int for each thread.
DEVICE int sumBefore(int own, int* sums) {
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int step = 1; step < blockDim.x; step <<= 1) {
    int before = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += before;
    __syncthreads();
  }
  return sums[threadIdx.x] - own;
}

// counts [digits, blocks] become the places where each tile's items of each digit begin; totals [digits] (not where it
// is null) are the items of each of the first `kept` digits. One block.
KERNEL digitOffsets(int* counts, int* totals, int digits, int blocks, int kept) {
  __shared__ int sums[1024];
  int n = digits * blocks, run = (n + blockDim.x - 1) / blockDim.x, sum = 0;
  int first = min(n, (int)threadIdx.x * run), end = min(n, first + run);
  if (totals != 0)
    for (int d = threadIdx.x; d < kept; d += blockDim.x) {
      int total = 0;
      for (int b = 0; b < blocks; b++) total += counts[d * blocks + b];
      totals[d] = total;
    }
  for (int i = first; i < end; i++) sum += counts[i];
  int place = sumBefore(sum, sums);
  for (int i = first; i < end; i++) {
    int count = counts[i];
    counts[i] = place;
    place += count;
  }
}

// Moves each item to its place. `order` holds what is sorted along; null: the items' own indices. `inverse` (not where
// it is null) tells the place of each item. One warp for each tile; shared: digits ints.
KERNEL digitScatter(const int* keys, const int* order, const int* offsets, int* sortedKeys, int* sortedOrder,
                    int* inverse, int n, int shift, int digits) {
  extern __shared__ int next[];
  int lane = threadIdx.x;
  for (int d = lane; d < digits; d += 32) next[d] = offsets[d * gridDim.x + blockIdx.x];
  __syncwarp();
  int first = blockIdx.x * TILE, end = min(n, first + TILE);
  for (int i = first + lane; i < first + TILE; i += 32) {
    bool live = i < end;
    int key = live ? keys[i] : 0, digit = live ? (key >> shift) % digits : -1;
    u32 same = __match_any_sync(0xffffffffu, digit);
    int before = __popc(same & ((1u << lane) - 1));
    if (live) {
      int place = next[digit] + before, item = order == 0 ? i : order[i];
      if (sortedKeys != 0) sortedKeys[place] = key;
      sortedOrder[place] = item;
      if (inverse != 0) inverse[item] = place;
    }
    __syncwarp();
    if (live && before == 0) next[digit] += __popc(same);
    __syncwarp();
  }
}

// All three for items of one tile. One block, of whole warps, with a thread for each item and for each digit. Shared:
// digits ints for each warp.
KERNEL digitTile(const int* keys, const int* order, int* sortedKeys, int* sortedOrder, int* inverse, int* totals, int n,
                 int shift, int digits, int kept) {
  extern __shared__ int places[];
  __shared__ int sums[TILE];
  takeTurn();
  int i = threadIdx.x, lane = i & 31, warps = blockDim.x >> 5, *own = places + (i >> 5) * digits;
  for (int at = i; at < warps * digits; at += blockDim.x) places[at] = 0;
  __syncthreads();
  bool live = i < n;
  int key = live ? keys[i] : 0, digit = live ? (key >> shift) % digits : -1;
  u32 same = __match_any_sync(0xffffffffu, digit);
  int before = __popc(same & ((1u << lane) - 1));
  if (live && before == 0) own[digit] = __popc(same);
  __syncthreads();
  // Of each digit: the items of the warps in front, then those of lower digits, too.
  int total = 0;
  if (i < digits)
    for (int w = 0; w < warps; w++) {
      int count = places[w * digits + i];
      places[w * digits + i] = total;
      total += count;
    }
  if (totals != 0 && i < kept) totals[i] = total;
  int first = sumBefore(total, sums);
  if (i < digits)
    for (int w = 0; w < warps; w++) places[w * digits + i] += first;
  __syncthreads();
  if (!live) return;
  int place = own[digit] + before, item = order == 0 ? i : order[i];
  if (sortedKeys != 0) sortedKeys[place] = key;
  sortedOrder[place] = item;
  if (inverse != 0) inverse[item] = place;
}

// out [blocks, experts]: how often each expert is among `run` choices; a block for each. Shared: experts ints.
KERNEL expertCounts(const int* chosen, int* out, int run, int experts) {
  extern __shared__ int own[];
  for (int e = threadIdx.x; e < experts; e += blockDim.x) own[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < run; i += blockDim.x) {
    int expert = chosen[(i64)blockIdx.x * run + i];
    if (expert < experts) atomicAdd(&own[expert], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += blockDim.x) out[blockIdx.x * experts + e] = own[e];
}

// A key that orders as the number does; zeros of both signs are equal.
DEVICE u32 orderKey(float x) {
  u32 bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The place of the first of an expert's slots in `order`; that of what has no expert for e = experts.
DEVICE int placesBefore(const int* counts, int e) {
  int first = 0;
  for (int i = 0; i < e; i++) first += counts[i];
  return first;
}

// Choices beyond the `rows` best of an expert become `experts`: by weight, ties to the first slot, or (weights null) by
// slot. `order` has the slots sorted by expert, `counts` the slots of each expert. A block for each expert, and one for
// the slots that had none. The least key that is kept is found byte by byte, from the highest.
KERNEL expertCapacity(const float* weights, const int* order, const int* counts, int* out, int n, int experts,
                      int rows) {
  __shared__ int found[256], sums[1024];
  __shared__ int byte, wanted;
  int e = blockIdx.x, first = placesBefore(counts, e);
  int own = e < experts ? counts[e] : n - first;
  if (e == experts || weights == 0 || own <= rows || rows <= 0) {
    for (int i = threadIdx.x; i < own; i += blockDim.x) out[order[first + i]] = e < experts && i < rows ? e : experts;
    return;
  }
  u32 least = 0;
  int left = rows;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += blockDim.x) found[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < own; i += blockDim.x) {
      u32 key = orderKey(weights[order[first + i]]);
      if (shift == 24 || key >> (shift + 8) == least >> (shift + 8)) atomicAdd(&found[(key >> shift) & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int b = 255, before = 0;
      while (b > 0 && before + found[b] < left) before += found[b--];
      byte = b;
      wanted = left - before;
    }
    __syncthreads();
    least |= (u32)byte << shift;
    left = wanted;
    __syncthreads();
  }
  // Of the slots with the least key the first `left` are kept; each thread takes a run of slots.
  int run = (own + blockDim.x - 1) / blockDim.x, from = min(own, (int)threadIdx.x * run), to = min(own, from + run);
  int ties = 0;
  for (int i = from; i < to; i++) ties += orderKey(weights[order[first + i]]) == least;
  int tie = sumBefore(ties, sums);
  for (int i = from; i < to; i++) {
    int slot = order[first + i];
    u32 key = orderKey(weights[slot]);
    out[slot] = key > least || (key == least && tie++ < left) ? e : experts;
  }
}
