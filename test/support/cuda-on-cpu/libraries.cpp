// The CUDA driver, NVRTC and cuBLASLt as far as the engine calls them, on the CPU: one shared library under three names.
// Kernels are compiled by g++ behind kernel.h (its path in UPCYCLE_EMULATOR_HEADER); streams run at once; a captured
// graph is a list of calls. The first megabyte of fresh memory holds bytes of 0xff, which are no numbers, so that
// what is read before it is written shows.
#include <dlfcn.h>
#include <unistd.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>
#define API extern "C" __attribute__((visibility("default")))
typedef uint64_t u64;
static std::map<u64, size_t> blocks; static size_t used = 0;
static size_t total() { const char* t = getenv("UPCYCLE_EMULATOR_MEMORY"); return t ? strtoull(t, 0, 10) : (size_t)8 << 30; }
static int failing(const char* name) {
  static int calls = 0; const char* f = getenv("UPCYCLE_EMULATOR_FAIL");
  if (!f) return 0;
  std::string want(f); size_t colon = want.find(':'), second = want.find(':', colon + 1);
  if (want.substr(0, colon) != name) return 0;
  return ++calls > atoi(want.c_str() + second + 1) ? atoi(want.c_str() + colon + 1) : 0;
}
struct Module { void* handle; };
struct Function { void (*launch)(void*, const int*, const int*, int, void**); void* call; int count; };
typedef std::vector<std::function<void()>> Calls;
static Calls* capturing = 0;
static void issue(std::function<void()> f) { if (capturing) capturing->push_back(f); else f(); }

API int cuInit(unsigned) { return failing("cuInit"); }
API int cuDriverGetVersion(int* v) { const char* t = getenv("UPCYCLE_EMULATOR_DRIVER"); *v = t ? atoi(t) : 13000; return 0; }
API int cuDeviceGetCount(int* n) { *n = 1; return failing("cuDeviceGetCount"); }
API int cuDeviceGet(int* d, int i) { *d = i; return i == 0 ? 0 : 101; }
API int cuDeviceGetName(char* name, int n, int) { snprintf(name, n, "emulated GPU"); return 0; }
API int cuDeviceGetAttribute(int* v, int attribute, int) {
  // Compute capability 8.0: what 9.0 has beyond it is not emulated.
  *v = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 16 ? 4 : attribute == 97 ? 232448 : 0; return 0;
}
API int cuDeviceTotalMem_v2(size_t* n, int) { *n = total(); return 0; }
API int cuDevicePrimaryCtxRetain(u64* c, int) { *c = 1; return failing("cuDevicePrimaryCtxRetain"); }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxSetCurrent(u64) { return 0; }
API int cuMemGetInfo_v2(size_t* free, size_t* all) { *all = total(); *free = total() - used; return 0; }
API int cuMemAlloc_v2(u64* p, size_t n) {
  if (int f = failing("cuMemAlloc_v2")) return f;
  if (used + n > total()) return 2;
  void* m = 0; if (posix_memalign(&m, 256, n)) return 2; memset(m, 0xff, n < (1 << 20) ? n : 1 << 20); blocks[(u64)m] = n; used += n; *p = (u64)m; return 0;
}
API int cuMemFree_v2(u64 p) { if (!blocks.count(p)) return 1; used -= blocks[p]; blocks.erase(p); free((void*)p); return 0; }
API int cuMemHostAlloc(u64* p, size_t n, unsigned) { *p = (u64)aligned_alloc(256, (n + 255) / 256 * 256); return *p ? 0 : 2; }
API int cuMemFreeHost(u64 p) { free((void*)p); return 0; }
API int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t n, u64) { issue([=] { memcpy((void*)to, from, n); }); return 0; }
API int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t n, u64) { issue([=] { memcpy(to, (void*)from, n); }); return 0; }
API int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, u64) { issue([=] { memmove((void*)to, (void*)from, n); }); return 0; }
API int cuMemsetD8Async(u64 p, unsigned char v, size_t n, u64) { issue([=] { memset((void*)p, v, n); }); return 0; }
API int cuStreamCreate(u64* s, unsigned) { *s = 7; return 0; }
API int cuStreamDestroy_v2(u64) { return 0; }
API int cuStreamSynchronize(u64) { return failing("cuStreamSynchronize"); }
API int cuEventCreate(u64* e, unsigned) { *e = 9; return 0; }
API int cuEventDestroy_v2(u64) { return 0; }
API int cuEventRecord(u64, u64) { return 0; }
API int cuStreamWaitEvent(u64, u64, unsigned) { return failing("cuStreamWaitEvent"); }
API int cuEventSynchronize(u64) { return 0; }
API int cuEventElapsedTime_v2(float* ms, u64, u64) { *ms = 1; return 0; }
API int cuStreamBeginCapture_v2(u64, int) { capturing = new Calls; return 0; }
API int cuStreamEndCapture(u64, u64* g) { *g = (u64)capturing; capturing = 0; return 0; }
API int cuGraphInstantiateWithFlags(u64* e, u64 g, unsigned long long) { *e = (u64) new Calls(*(Calls*)g); return 0; }
API int cuGraphDestroy(u64 g) { delete (Calls*)g; return 0; }
API int cuGraphExecDestroy(u64 g) { delete (Calls*)g; return 0; }
API int cuGraphLaunch(u64 e, u64) { if (int f = failing("cuGraphLaunch")) return f; for (auto& f : *(Calls*)e) f(); return 0; }
API int cuGetErrorName(int e, const char** s) { *s = e == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : e == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OTHER"; return 0; }
API int cuGetErrorString(int e, const char** s) { *s = e == 2 ? "out of memory" : e == 719 ? "unspecified launch failure" : "some failure"; return 0; }
API int cuModuleLoadData(u64* m, const void* image) {
  const char* data = (const char*)image; u64 n; memcpy(&n, data, 8);
  char path[] = "/tmp/upcycle-emulated-XXXXXX"; int fd = mkstemp(path);
  if (write(fd, data + 8, n) != (ssize_t)n) return 200; close(fd);
  void* h = dlopen(path, RTLD_NOW | RTLD_LOCAL); unlink(path);
  if (!h) { fprintf(stderr, "%s\n", dlerror()); return 200; }
  *m = (u64) new Module{h}; return 0;
}
API int cuModuleUnload(u64 m) { delete (Module*)m; return 0; }
API int cuModuleGetFunction(u64* f, u64 m, const char* name) {
  void* h = ((Module*)m)->handle; void* call = dlsym(h, ("emuCall_" + std::string(name)).c_str());
  if (!call) return 500;
  int count = ((int (*)())dlsym(h, ("emuCount_" + std::string(name)).c_str()))();
  *f = (u64) new Function{(void (*)(void*, const int*, const int*, int, void**))dlsym(h, "emuLaunch"), call, count}; return 0;
}
API int cuFuncSetAttribute(u64, int, int) { return 0; }
API int cuTensorMapEncodeTiled(u64, int, unsigned, u64, const u64*, const u64*, const unsigned*, const unsigned*, int, int, int, int) { return 801; }
API int cuLaunchKernel(u64 f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, u64, void** p, void**) {
  if (int e = failing("cuLaunchKernel")) return e;
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || shared > 232448) return 1;
  Function* fn = (Function*)f; std::vector<u64> copy(fn->count); for (int i = 0; i < fn->count; i++) memcpy(&copy[i], p[i], 8);
  issue([=] {
    std::vector<u64> values = copy; std::vector<void*> pointers; for (auto& v : values) pointers.push_back(&v);
    int grid[] = {(int)gx, (int)gy, (int)gz}, block[] = {(int)bx, (int)by, (int)bz};
    fn->launch(fn->call, grid, block, shared, pointers.data());
  });
  return 0;
}

API int cuLaunchKernelEx(const unsigned* c, u64 f, void** p, void** extra) {
  return cuLaunchKernel(f, c[0], c[1], c[2], c[3], c[4], c[5], c[6], 0, p, extra);
}

struct Program { std::string source, name, log, binary; };
API int nvrtcVersion(int* a, int* b) { *a = 13; *b = 0; return 0; }
API int nvrtcCreateProgram(u64* p, const char* s, const char* name, int, const void*, const void*) { *p = (u64) new Program{s, name ? name : "", "", ""}; return 0; }
API int nvrtcCompileProgram(u64 h, int n, const char** options) {
  Program* p = (Program*)h; std::string s = p->source, defines;
  // Of the kernels that a macro makes, those of one size of heads are compiled.
  std::string heads, capped;
  for (int i = 0; i < n; i++) {
    std::string option(options[i]);
    if (!option.compare(0, 2, "-D")) defines += " '" + option + "'";
    if (!option.compare(0, 12, "-DHEAD_SIZE=")) heads = option.substr(12);
    if (option == "-DSOFT_CAP=1") capped = "Capped";
  }
  s = std::regex_replace(s, std::regex("extern __shared__ (\\w+) (\\w+)\\[\\];"), "$1* $2 = ($1*)emuShared;");
  std::string tail; std::regex kernel("KERNEL\\s+(?:__launch_bounds__\\([^)]*\\)\\s+)?(\\w+)\\("), many("\\nFLASH_KERNELS\\((\\w+),");
  std::vector<std::string> names;
  // A kernel whose name ends with a size of heads is there where that size is compiled.
  std::smatch found; std::regex sized(".*[A-Za-z](64|128|256)");
  for (std::sregex_iterator i(p->source.begin(), p->source.end(), kernel), end; i != end; ++i) {
    std::string name = (*i)[1];
    if (heads.empty() || !std::regex_match(name, found, sized) || found[1] == heads) names.push_back(name);
  }
  for (std::sregex_iterator i(p->source.begin(), p->source.end(), many), end; i != end; ++i)
    for (const char* stem : {"flash", "flashGradQ", "flashGradKV"})
      if ((*i)[1] == heads + capped) names.push_back(stem + std::string((*i)[1]));
  for (const std::string& k : names) {
    tail += "extern \"C\" void emuCall_" + k + "(void** p) { emuInvoke(" + k + ", p); }\nextern \"C\" int emuCount_" + k + "() { return emuCount(" + k + "); }\n";
  }
  std::string whole = "#include \"" + std::string(getenv("UPCYCLE_EMULATOR_HEADER")) + "\"\n" + s + "\n#line 1 \"tail\"\n" + tail;
  // Compiling takes seconds; what was compiled before is kept beside the library.
  Dl_info info; dladdr((void*)nvrtcCompileProgram, &info); std::string folder(info.dli_fname); folder.resize(folder.rfind('/'));
  std::string base = folder + "/" + std::to_string(std::hash<std::string>()(whole + defines)), source = base + ".cpp", library = base + ".so";
  if (access(library.c_str(), R_OK)) {
    std::ofstream(source) << whole;
    std::string made = library + std::to_string(getpid()), log = base + ".log" + std::to_string(getpid());
    std::string command = "g++ -std=c++17 -O2 -ffp-contract=off -w -fPIC -shared" + defines + " -o " + made + " " + source + " > " + log + " 2>&1";
    int r = system(command.c_str());
    std::stringstream text; text << std::ifstream(log).rdbuf(); p->log = text.str(); unlink(log.c_str());
    if (r) return 6;
    rename(made.c_str(), library.c_str());
  }
  std::stringstream b; b << std::ifstream(library, std::ios::binary).rdbuf(); std::string body = b.str(); u64 size = body.size();
  p->binary = std::string((char*)&size, 8) + body; return 0;
}
API int nvrtcGetProgramLogSize(u64 p, size_t* n) { *n = ((Program*)p)->log.size() + 1; return 0; }
API int nvrtcGetProgramLog(u64 p, char* s) { strcpy(s, ((Program*)p)->log.c_str()); return 0; }
API int nvrtcGetCUBINSize(u64 p, size_t* n) { *n = ((Program*)p)->binary.size(); return 0; }
API int nvrtcGetCUBIN(u64 p, char* b) { memcpy(b, ((Program*)p)->binary.data(), ((Program*)p)->binary.size()); return 0; }
API int nvrtcDestroyProgram(u64* p) { delete (Program*)*p; *p = 0; return 0; }
API const char* nvrtcGetErrorString(int e) { return e == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }

struct Desc { int transA = 0, transB = 0, compute = 0; };
struct Layout { int type; u64 rows, columns; int64_t ld; int batch = 1; int64_t stride = 0; };
static double element(const void* p, int type, int64_t i) {
  if (type == 0) return ((const float*)p)[i];
  uint32_t bits = (uint32_t)((const uint16_t*)p)[i] << 16; float f; memcpy(&f, &bits, 4); return f;
}
static void assign(void* p, int type, int64_t i, double x) {
  if (type == 0) { ((float*)p)[i] = (float)x; return; }
  float f = (float)x; uint32_t b; memcpy(&b, &f, 4); ((uint16_t*)p)[i] = (uint16_t)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
API size_t cublasLtGetVersion() { return 130100; }
API int cublasLtCreate(u64* h) { *h = 3; return 0; }
API int cublasLtDestroy(u64) { return 0; }
API const char* cublasLtGetStatusString(int) { return "CUBLAS_STATUS_EMULATED"; }
API int cublasLtMatmulDescCreate(u64* d, int compute, int) { Desc* x = new Desc; x->compute = compute; *d = (u64)x; return 0; }
API int cublasLtMatmulDescDestroy(u64 d) { delete (Desc*)d; return 0; }
API int cublasLtMatmulDescSetAttribute(u64 d, int a, const int* v, size_t) { if (a == 3) ((Desc*)d)->transA = *v; if (a == 4) ((Desc*)d)->transB = *v; return 0; }
API int cublasLtMatrixLayoutCreate(u64* l, int type, u64 rows, u64 columns, int64_t ld) { Layout* x = new Layout; x->type = type; x->rows = rows; x->columns = columns; x->ld = ld; *l = (u64)x; return 0; }
API int cublasLtMatrixLayoutDestroy(u64 l) { delete (Layout*)l; return 0; }
API int cublasLtMatrixLayoutSetAttribute(u64 l, int a, const void* v, size_t) { if (a == 5) ((Layout*)l)->batch = *(int*)v; if (a == 6) ((Layout*)l)->stride = *(int64_t*)v; return 0; }
API int cublasLtMatmulPreferenceCreate(u64* p) { *p = 5; return 0; }
API int cublasLtMatmulPreferenceSetAttribute(u64, int, const void*, size_t) { return 0; }
API int cublasLtMatmulPreferenceDestroy(u64) { return 0; }
API int cublasLtMatmulAlgoGetHeuristic(u64, u64, u64, u64, u64, u64, u64, int n, void* results, int* count) { memset(results, 0, 96 * n); *count = 1; return 0; }
API int cublasLtMatmul(u64, u64 d, const float* alpha, u64 a, u64 la, u64 b, u64 lb, const float* beta, u64 c, u64 lc, u64 out, u64 lo, const void*, u64, size_t, u64) {
  Desc desc = *(Desc*)d; Layout A = *(Layout*)la, B = *(Layout*)lb, C = *(Layout*)lo; float al = *alpha, be = *beta;
  u64 k = desc.transA ? A.rows : A.columns, kb = desc.transB ? B.columns : B.rows, m = desc.transA ? A.columns : A.rows, n = desc.transB ? B.rows : B.columns;
  if (k != kb || m != C.rows || n != C.columns || A.ld < (int64_t)A.rows || B.ld < (int64_t)B.rows || C.ld < (int64_t)C.rows) return 7;
  issue([=] {
    for (int s = 0; s < C.batch; s++) for (u64 j = 0; j < n; j++) for (u64 i = 0; i < m; i++) {
      double sum = 0;
      for (u64 p = 0; p < k; p++)
        sum += element((void*)a, A.type, s * A.stride + (desc.transA ? i * A.ld + p : p * A.ld + i)) * element((void*)b, B.type, s * B.stride + (desc.transB ? p * B.ld + j : j * B.ld + p));
      int64_t at = s * C.stride + j * C.ld + i;
      assign((void*)out, C.type, at, al * sum + (be != 0 ? be * element((void*)c, C.type, at) : 0));
    }
  });
  return 0;
}
