// A CUDA runtime without a GPU, for tests: torch's CUDA build runs on it as it is.
//
// Device memory is host memory with a limit, copies copy, kernels and library calls compute nothing, and what a capture
// forbids ends it with an error, as in CUDA. So it shows forbidden calls, waits, launches and memory, but no numbers, no speed
// and no races. The builder adds a function that returns 0 for everything else that torch links to.
//
// Environment: FAKE_CUDA_GPUS (1), FAKE_CUDA_GIB of memory each (80), FAKE_CUDA_LOST_AFTER so many kernels every call fails as
// after an illegal access (0: never).

#include <driver_types.h>
#include <vector_types.h>

#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

namespace {

struct Capture {
    int device;
    std::thread::id thread;  // the one that began it
    bool relaxed;
    bool broken = false;
    size_t kernels = 0;
};

struct Stream {
    int device = 0;
    Capture* capture = nullptr;
};

struct Event {
    Capture* capture = nullptr;  // that it was recorded in
};

struct Block {
    size_t size;
    int device;
};

std::recursive_mutex lock_;
std::map<std::string, long> counts;
std::set<Capture*> captures;
std::set<int> contexts;
std::map<int, Stream> default_streams;
std::map<uintptr_t, Block> device_blocks, host_blocks;
std::map<int, size_t> used;
std::string violations;

thread_local int device = 0;
thread_local bool relaxed = false;  // this thread has lifted what captures forbid
thread_local cudaError_t last_error = cudaSuccess;
thread_local struct { dim3 grid, block; size_t shared; cudaStream_t stream; } configuration;

double setting(const char* name, double otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atof(value) : otherwise;
}

int gpus() { return static_cast<int>(setting("FAKE_CUDA_GPUS", 1)); }
size_t memory() { return static_cast<size_t>(setting("FAKE_CUDA_GIB", 80) * (1ull << 30)); }

bool lost() {
    static const long after = static_cast<long>(setting("FAKE_CUDA_LOST_AFTER", 0));
    return after && counts["kernels"] + counts["graph launches"] > after;
}

cudaError_t fail(cudaError_t error) { return last_error = error; }

cudaError_t violate(Capture* capture, const std::string& what) {
    capture->broken = true;
    counts["violations"]++;
    violations += what + "\n";
    return fail(cudaErrorStreamCaptureUnsupported);
}

// Every call begins with it: takes the lock and counts.
#define CALL(name)                                           \
    std::lock_guard<std::recursive_mutex> guard(lock_);      \
    counts[name]++;                                          \
    contexts.insert(device);                                 \
    if (lost()) return fail(cudaErrorIllegalAddress)

// A call that a thread must not make while it captures.
#define UNSAFE(name)                                                               \
    for (Capture* capture : captures)                                              \
        if (!relaxed && !capture->relaxed && capture->thread == std::this_thread::get_id()) \
            return violate(capture, std::string(name) + " by a thread that captures")

Stream* resolve(cudaStream_t stream) {
    if (reinterpret_cast<uintptr_t>(stream) <= 2) {  // the default streams
        default_streams[device].device = device;
        return &default_streams[device];
    }
    return reinterpret_cast<Stream*>(stream);
}

// Work is put on a stream.
cudaError_t enqueue(cudaStream_t handle, const char* what) {
    Stream* stream = resolve(handle);
    if (!stream->capture) {
        counts[what]++;
        return cudaSuccess;
    }
    if (stream->capture->broken) return fail(cudaErrorStreamCaptureInvalidated);
    stream->capture->kernels++;
    return cudaSuccess;
}

// The block that a pointer leads into; none: null.
const Block* holds(const std::map<uintptr_t, Block>& blocks, uintptr_t pointer) {
    auto after = blocks.upper_bound(pointer);
    if (after == blocks.begin()) return nullptr;
    --after;
    return pointer < after->first + after->second.size ? &after->second : nullptr;
}

}  // namespace

extern "C" {

// What tests ask

long fake_cuda_count(const char* name) {
    std::lock_guard<std::recursive_mutex> guard(lock_);
    if (!std::strcmp(name, "bytes")) return static_cast<long>(used[0]);
    if (!std::strncmp(name, "context on ", 11)) return contexts.count(std::atoi(name + 11));
    return counts[name];
}

const char* fake_cuda_violations() { return violations.c_str(); }

// Devices

cudaError_t cudaGetDeviceCount(int* count) { *count = gpus(); return cudaSuccess; }
cudaError_t cudaGetDevice(int* current) { *current = device; return cudaSuccess; }
cudaError_t cudaSetDevice(int wanted) {
    if (wanted < 0 || wanted >= gpus()) return fail(cudaErrorInvalidDevice);
    device = wanted;
    CALL("cudaSetDevice");
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    std::memset(p, 0, sizeof *p);
    std::strcpy(p->name, "no GPU at all");
    p->totalGlobalMem = memory();
    p->major = 9;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsPerMultiProcessor = 2048;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = 232448;
    p->sharedMemPerMultiprocessor = 233472;
    p->l2CacheSize = 50 << 20;
    p->textureAlignment = 512;
    p->unifiedAddressing = p->concurrentKernels = p->cooperativeLaunch = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    static const std::map<int, int> known = {{1, 1024}, {8, 49152}, {10, 32}, {16, 132}, {39, 2048}, {75, 9},
                                             {76, 0}, {81, 233472}, {82, 65536}, {97, 232448}, {106, 32}};
    auto found = known.find(attribute);
    *value = found == known.end() ? 1 : found->second;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int number) {
    std::snprintf(id, length, "0000:%02d:00.0", number);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {
    CALL("waits");
    for (Capture* capture : captures)
        if (capture->device == device) return violate(capture, "cudaDeviceSynchronize beside a capture");
    return cudaSuccess;
}
cudaError_t cudaGetLastError() { cudaError_t error = last_error; last_error = cudaSuccess; return error; }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
        case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
        default: return "unknown error";
    }
}

// Memory

cudaError_t cudaMalloc(void** pointer, size_t size) {
    CALL("cudaMalloc");
    UNSAFE("cudaMalloc");
    if (used[device] + size > memory()) return fail(cudaErrorMemoryAllocation);
    *pointer = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*pointer == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
    device_blocks[reinterpret_cast<uintptr_t>(*pointer)] = {size, device};
    used[device] += size;
    return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
    CALL("cudaFree");
    UNSAFE("cudaFree");
    auto block = device_blocks.find(reinterpret_cast<uintptr_t>(pointer));
    if (block == device_blocks.end()) return pointer ? fail(cudaErrorInvalidValue) : cudaSuccess;
    used[block->second.device] -= block->second.size;
    munmap(pointer, block->second.size);
    device_blocks.erase(block);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
    CALL("cudaHostAlloc");
    UNSAFE("cudaHostAlloc");
    *pointer = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    host_blocks[reinterpret_cast<uintptr_t>(*pointer)] = {size, device};
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
    CALL("cudaFreeHost");
    UNSAFE("cudaFreeHost");
    host_blocks.erase(reinterpret_cast<uintptr_t>(pointer));
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* total) {
    CALL("cudaMemGetInfo");
    *total = memory();
    *left = memory() - used[device];
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    CALL("cudaPointerGetAttributes");
    std::memset(attributes, 0, sizeof *attributes);
    uintptr_t at = reinterpret_cast<uintptr_t>(pointer);
    attributes->type = holds(device_blocks, at) ? cudaMemoryTypeDevice
                       : holds(host_blocks, at) ? cudaMemoryTypeHost
                                                : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    CALL("copies");
    if (cudaError_t error = enqueue(stream, "eager copies")) return error;
    if (!resolve(stream)->capture) std::memmove(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
    CALL("waits");
    UNSAFE("cudaMemcpy");
    std::memmove(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    CALL("sets");
    if (cudaError_t error = enqueue(stream, "eager sets")) return error;
    if (!resolve(stream)->capture) std::memset(to, value, size);
    return cudaSuccess;
}

// Streams and events

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
    CALL("cudaStreamCreate");
    auto* made = new Stream;
    made->device = device;
    *stream = reinterpret_cast<cudaStream_t>(made);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    CALL("waits");
    if (resolve(stream)->capture) return violate(resolve(stream)->capture, "a wait for a stream that captures");
    UNSAFE("cudaStreamSynchronize");
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    CALL("cudaStreamQuery");
    UNSAFE("cudaStreamQuery");
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    std::lock_guard<std::recursive_mutex> guard(lock_);
    Capture* capture = resolve(stream)->capture;
    *status = !capture           ? cudaStreamCaptureStatusNone
              : capture->broken  ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t**, const void**, size_t* nodes) {
    std::lock_guard<std::recursive_mutex> guard(lock_);
    if (id) *id = reinterpret_cast<uintptr_t>(resolve(stream)->capture);
    if (graph) *graph = nullptr;
    if (nodes) *nodes = 0;
    return cudaStreamIsCapturing(stream, status);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    bool before = relaxed;
    relaxed = *mode == cudaStreamCaptureModeRelaxed;
    *mode = before ? cudaStreamCaptureModeRelaxed : cudaStreamCaptureModeGlobal;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = reinterpret_cast<cudaEvent_t>(new Event);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { delete reinterpret_cast<Event*>(event); return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    CALL("cudaEventRecord");
    reinterpret_cast<Event*>(event)->capture = resolve(stream)->capture;
    return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
    return cudaEventRecord(event, stream);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) { *milliseconds = 1; return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t event) {
    CALL("cudaEventQuery");
    Capture* capture = reinterpret_cast<Event*>(event)->capture;
    if (captures.count(capture)) return violate(capture, "a question about an event of a capture");
    UNSAFE("cudaEventQuery");
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    CALL("waits");
    return cudaEventQuery(event);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    CALL("cudaStreamWaitEvent");
    Capture* theirs = reinterpret_cast<Event*>(event)->capture;
    Capture*& ours = resolve(stream)->capture;
    if (!captures.count(theirs)) theirs = nullptr;
    if (theirs && !ours) ours = theirs;  // the stream joins the capture
    if (ours && ours != theirs) return violate(ours, "a stream that captures waits for what is not captured");
    return cudaSuccess;
}

// Kernels and graphs

cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t stream) {
    CALL("launches");
    return enqueue(stream, "kernels");
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t stream) {
    CALL("launches");
    return enqueue(stream, "kernels");
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* launch, const void*, void**) {
    CALL("launches");
    return enqueue(launch->stream, "kernels");
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configuration = {grid, block, shared, stream};
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, cudaStream_t* stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *stream = configuration.stream;
    return cudaSuccess;
}
void** __cudaRegisterFatBinary(void*) { static void* handle; return &handle; }
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    std::memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
    *blocks = 2;
    return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** address, const void*) { *address = std::calloc(1, 4096); return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    CALL("recordings");
    if (!captures.empty()) counts["recordings beside others"]++;
    auto* capture = new Capture{device, std::this_thread::get_id(), mode == cudaStreamCaptureModeRelaxed};
    resolve(stream)->capture = capture;
    captures.insert(capture);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    CALL("cudaStreamEndCapture");
    Capture* capture = resolve(stream)->capture;
    captures.erase(capture);
    // A stream that joined keeps a pointer to a capture that has ended; torch's own streams never do.
    resolve(stream)->capture = nullptr;
    *graph = capture->broken ? nullptr : reinterpret_cast<cudaGraph_t>(new size_t(capture->kernels));
    return capture->broken ? fail(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    CALL("cudaGraphInstantiate");
    counts["kernels of the last graph"] = static_cast<long>(*reinterpret_cast<size_t*>(graph));
    counts["graphs"]++;
    *made = reinterpret_cast<cudaGraphExec_t>(new int);
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* nodes) {
    *nodes = *reinterpret_cast<size_t*>(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) {
    CALL("cudaGraphDestroy");
    UNSAFE("cudaGraphDestroy");
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
    CALL("cudaGraphExecDestroy");
    if (!captures.empty()) counts["graphs freed beside a recording"]++;
    counts["graphs"]--;
    UNSAFE("cudaGraphExecDestroy");
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t stream) {
    CALL("launches");
    return enqueue(stream, "graph launches");
}

// The driver: torch asks for its functions by name, and which devices have a context

int cuDevicePrimaryCtxGetState(int number, unsigned* flags, int* active) {
    std::lock_guard<std::recursive_mutex> guard(lock_);
    *flags = 0;
    *active = contexts.count(number);
    return 0;
}
int cuCtxGetCurrent(void** context) { static int any; *context = &any; return 0; }

// What Triton asks of the driver: it compiles its kernels for the GPU that cudaGetDeviceProperties describes, and starts them.
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuCtxGetDevice(int* current) { *current = device; return 0; }
int cuCtxGetLimit(size_t* value, int) { *value = 0; return 0; }
int cuCtxSetLimit(int, size_t) { return 0; }
int cuDeviceGet(int* found, int number) { *found = number; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 97 ? 232448 : attribute == 81 ? 233472 : 132;  // shared memory of a block, of a multiprocessor
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return cuCtxGetCurrent(context); }
int cuCtxSetCurrent(void*) { return 0; }
int cuGetErrorString(int, const char** text) { *text = "an error of the fake driver"; return 0; }
int cuModuleLoadData(void** module, const void*) { *module = std::calloc(1, 8); return 0; }
int cuModuleUnload(void* module) { std::free(module); return 0; }
int cuModuleGetFunction(void** function, void* module, const char*) { *function = module; return 0; }
int cuFuncGetAttribute(int* value, int attribute, void*) { *value = attribute == 0 ? 1024 : 0; return 0; }  // 0: threads
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuFuncSetCacheConfig(void*, int) { return 0; }
// Of every tensor that a kernel of Triton's is about to be started with.
int cuPointerGetAttribute(void* value, int, unsigned long long pointer) {
    std::lock_guard<std::recursive_mutex> guard(lock_);
    const Block* block = holds(device_blocks, pointer);
    if (block && block->device != device) {
        counts["violations"]++;
        violations += "a kernel is started on a GPU with memory of another one\n";
    }
    *static_cast<unsigned long long*>(value) = pointer;
    return 0;
}
int cuPointerGetAttributes(unsigned count, int*, void** values, unsigned long long pointer) {
    for (unsigned i = 0; i < count; i++) cuPointerGetAttribute(values[i], 0, pointer);
    return 0;
}
struct DriverLaunch {
    unsigned grid[3], block[3], shared;
    cudaStream_t stream;
    void* attributes;
    unsigned count;
};
int cuLaunchKernelEx(const DriverLaunch* launch, void*, void**, void**) {
    CALL("launches");
    counts["launches of Triton's"]++;
    return enqueue(launch->stream, "kernels");
}
static int any_function() { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    *function = dlsym(RTLD_DEFAULT, name);
    if (!*function) *function = reinterpret_cast<void*>(any_function);
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// Libraries, where a caller reads what is written for it

static int make(void** handle) { *handle = std::calloc(1, 4096); return 0; }
int cublasCreate_v2(void** handle) { return make(handle); }
int cublasGetMathMode(void*, int* mode) { return *mode = 0; }
int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0; }
int cublasLtMatmulDescCreate(void** made, int, int) { return make(made); }
int cublasLtMatmulPreferenceCreate(void** made) { return make(made); }
int cublasLtMatrixLayoutCreate(void** made, int, uint64_t, uint64_t, int64_t) { return make(made); }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* result, int* found) {
    std::memset(result, 0, 96);
    *found = 1;
    return 0;
}
int cudnnCreate(void** handle) { return make(handle); }
int cudnnGetStream(void*, cudaStream_t* stream) { *stream = nullptr; return 0; }
int cudnnCreateTensorDescriptor(void** made) { return make(made); }
int cudnnCreateFilterDescriptor(void** made) { return make(made); }
int cudnnCreateConvolutionDescriptor(void** made) { return make(made); }
int cudnnCreateActivationDescriptor(void** made) { return make(made); }
int cudnnBackendCreateDescriptor(int, void** made) { return make(made); }
int cudnnBackendGetAttribute(void*, int name, int type, int64_t room, int64_t* count, void* values) {
    const int heuristics = 202, integer = 3;
    if (room == 1 && values && type == integer && name != heuristics) *static_cast<int64_t*>(values) = 0;
    if (count) *count = room == 1 || name == heuristics;
    return 0;
}
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void*, int, int, void*, void*, void*, void*, void*, size_t* n) {
    *n = 0;
    return 0;
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*, size_t* n) { *n = 0; return 0; }
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void*, int, int, void*, void*, void*, void*, void*, void*, void*,
                                                      size_t* n) {
    *n = 0;
    return 0;
}
int ncclGetVersion(int* version) { *version = 22900; return 0; }
// A communicator is the number of its ranks. All of them hold the same here, so that each can play the others.
int ncclCommInitRankConfig(int** communicator, int ranks, ...) { *communicator = new int(ranks); return 0; }
int ncclCommInitRankScalable(int** communicator, int ranks, int, int, void*, void*) {
    *communicator = new int(ranks);
    return 0;
}
static size_t nccl_bytes(size_t count, int type) {
    static const int bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return count * bytes[type];
}
int ncclAllGather(const void* from, char* to, size_t count, int type, int* ranks, cudaStream_t stream) {
    enqueue(stream, "kernels");
    for (int rank = 0; rank < *ranks; rank++)
        std::memmove(to + rank * nccl_bytes(count, type), from, nccl_bytes(count, type));
    return 0;
}
int ncclAllReduce(const void* from, void* to, size_t count, int type, int, int*, cudaStream_t stream) {
    enqueue(stream, "kernels");
    if (from != to) std::memmove(to, from, nccl_bytes(count, type));
    return 0;
}
int ncclCommGetAsyncError(void*, int* error) { *error = 0; return 0; }
}
