// A device of the type CUDA whose memory is the host's, for a torch that was built without CUDA.
//
// torch asks four things of a device: a guard, an allocator, hooks, and kernels. The first three are here, with the few kernels
// that make tensors; all others are a fallback in Python (device.py), which sees each operation as the device would get it.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>

namespace {
using namespace c10;

const Device GPU(kCUDA, 0);
bool zeroed = false;  // what is allocated now; see `zero`

struct Guard final : impl::DeviceGuardImplInterface {
  DeviceType type() const override { return kCUDA; }
  Device exchangeDevice(Device) const override { return GPU; }
  Device getDevice() const override { return GPU; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, GPU); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, GPU); }
  Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, GPU); }
  Stream getStreamFromGlobalPool(Device, bool) const override { return Stream(Stream::DEFAULT, GPU); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

void release(void* pointer) { std::free(pointer); }

struct Memory final : Allocator {
  DataPtr allocate(size_t bytes) override {
    void* pointer = nullptr;
    const bool failed = bytes > 0 && posix_memalign(&pointer, 64, bytes) != 0;
    TORCH_CHECK_WITH(OutOfMemoryError, !failed, "CUDA out of memory. Tried to allocate ", bytes >> 30, ".00 GiB.");
    if (zeroed && bytes > 0) std::memset(pointer, 0, bytes);
    return {pointer, pointer, &release, GPU};
  }
  DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};
Memory memory;
REGISTER_ALLOCATOR(kCUDA, &memory);

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  bool isPinnedPtr(const void*) const override { return false; }
  Allocator* getPinnedMemoryAllocator() const override { return GetCPUAllocator(); }
  Device getDeviceFromPtr(void*) const override { return GPU; }
  void deviceSynchronize(DeviceIndex) const override {}
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

// The same memory as a tensor of the other device

void forget(void* storage) { delete static_cast<Storage*>(storage); }

at::Tensor alias(const at::Tensor& tensor, Device device, DispatchKey key) {
  const Storage& storage = tensor.storage();
  Storage there;
  if (storage.data_ptr().get_deleter() == &forget) {  // one that was made here: of which it was
    there = *static_cast<Storage*>(storage.data_ptr().get_context());
  } else {
    DataPtr pointer(const_cast<void*>(storage.data()), new Storage(storage), &forget, device);
    there = Storage(Storage::use_byte_size_t(), storage.nbytes(), std::move(pointer), nullptr, /*resizable=*/false);
  }
  auto made = at::detail::make_tensor<TensorImpl>(std::move(there), DispatchKeySet(key), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  made.unsafeGetTensorImpl()->set_storage_offset(tensor.storage_offset());
  return made;
}

at::Tensor host(const at::Tensor& tensor) { return alias(tensor, kCPU, DispatchKey::CPU); }
at::Tensor device(const at::Tensor& tensor) { return alias(tensor, GPU, DispatchKey::CUDA); }

// While a graph is recorded nothing is computed: zeros are what everything can be indexed by.
void zero(bool on) { zeroed = on; }

// Kernels

ScalarType or_default(std::optional<ScalarType> type) { return type.value_or(typeMetaToScalarType(get_default_dtype())); }

at::Tensor empty(IntArrayRef size, std::optional<ScalarType> type, std::optional<Layout>, std::optional<Device>,
                 std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, DispatchKeySet(DispatchKey::CUDA), or_default(type), format);
}

at::Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> type, std::optional<Layout>,
                         std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, DispatchKeySet(DispatchKey::CUDA), or_default(type));
}

const at::Tensor& resize_(const at::Tensor& self, IntArrayRef size, std::optional<MemoryFormat>) {
  auto* tensor = self.unsafeGetTensorImpl();
  auto* storage = self.storage().unsafeGetStorageImpl();
  const size_t bytes = c10::multiply_integers(size) * tensor->itemsize();
  if (storage->nbytes() < bytes) {
    storage->set_data_ptr_noswap(memory.allocate(bytes));
    storage->set_nbytes(bytes);
  }
  tensor->set_sizes_contiguous(size);
  return self;
}

TORCH_LIBRARY_IMPL(aten, CUDA, kernels) {
  kernels.impl("empty.memory_format", empty);
  kernels.impl("empty_strided", empty_strided);
  kernels.impl("resize_", resize_);
}

TORCH_LIBRARY(simulated, functions) {
  functions.def("host(Tensor x) -> Tensor", host);
  functions.def("device(Tensor x) -> Tensor", device);
  functions.def("zero(bool on) -> ()", zero);
}
}  // namespace
