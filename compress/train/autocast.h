// Mixed precision in a scope.

#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/Device.h>

namespace compress {

/// While it lives, operators that gain by it compute in bfloat16 (autocast of the calling thread).
class Autocast {
 public:
  Autocast(bool on, c10::Device device) : on_(on), device_(device.type()) {
    if (!on_) return;
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::clear_cache();  // casts of weights, which the next step changes
    at::autocast::set_autocast_enabled(device_, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool on_;
  c10::DeviceType device_;
};

}  // namespace compress
