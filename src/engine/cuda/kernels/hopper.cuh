// What kernels for compute capability 9.0 share: barriers of asynchronous copies, TMA and wgmma. It stands between
// common.cuh and the sources of modules that need it (see engine/cuda/modules.ts).

// Bytes of a tensor map (see `Argument` in lowering/launches.ts).
#define MAP_BYTES 128

// The place in a ring of stages, and the phase of its barriers, which changes with each round.
struct Ring {
  int stage;
  u32 phase;
};

DEVICE void advance(Ring& ring, int stages) {
  if (++ring.stage == stages) {
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
// Bytes of device memory, a multiple of 16, to shared memory.
DEVICE void loadBytes(void* to, const void* from, u32 bytes, u64* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1],%2,[%3];" ::"r"(
                   sharedAddress(to)),
               "l"(from), "r"(bytes), "r"(sharedAddress(barrier))
               : "memory");
}
// Makes what the host has written as tensor maps visible to copies; a barrier of the block has to follow.
DEVICE void acquireMaps(const char* maps, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x)
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
// Waits for the first `threads` that come to barrier `id`, of which 0 is that of __syncthreads.
DEVICE void syncSome(int id, int threads) {
  asm volatile("bar.sync %0,%1;" ::"r"(id), "r"(threads) : "memory");
}

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

// c [64, 64] = a [64, 16] b [16, 64], or c += it where `more` is not 0. TA, TB: the operand lies along its other side.
template <int TA, int TB>
DEVICE void wgmma64(float* c, u64 a, u64 b, int more) {
  asm volatile("{.reg .pred p;setp.ne.b32 p,%34,0;"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
               "},%32,%33,p,1,1,%35,%36;}"
               : R8(0), R8(8), R8(16), R8(24)
               : "l"(a), "l"(b), "r"(more), "n"(TA), "n"(TB));
}

template <int TA, int TB>
DEVICE void wgmma128(float* c, u64 a, u64 b, int more) {
  asm volatile("{.reg .pred p;setp.ne.b32 p,%66,0;"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
               "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
               "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
               "},%64,%65,p,1,1,%67,%68;}"
               : R8(0), R8(8), R8(16), R8(24), R8(32), R8(40), R8(48), R8(56)
               : "l"(a), "l"(b), "r"(more), "n"(TA), "n"(TB));
}

// The same with a in registers, as `multiplyAdd` has it.
template <int TB>
DEVICE void wgmma64(float* c, const u32* a, u64 b, int more) {
  asm volatile("{.reg .pred p;setp.ne.b32 p,%37,0;"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
               "},{%32,%33,%34,%35},%36,p,1,1,%38;}"
               : R8(0), R8(8), R8(16), R8(24)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more), "n"(TB));
}

// The same with a in registers, as `multiplyAdd` has it.
template <int TB>
DEVICE void wgmma128(float* c, const u32* a, u64 b, int more) {
  asm volatile("{.reg .pred p;setp.ne.b32 p,%69,0;"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
               "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
               "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
               "},{%64,%65,%66,%67},%68,p,1,1,%70;}"
               : R8(0), R8(8), R8(16), R8(24), R8(32), R8(40), R8(48), R8(56)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more), "n"(TB));
}
