// Trains a small CIFAR-10 network on the spot, for a quickstart without a trained checkpoint.
//
// usage: lathe-train-small OUT.pt2 [EPOCHS]. A plain loop: SGD with Nesterov momentum, one cosine
// from 0.1 to 0, random flips. The accuracy that is reported later is that of the last epoch.

#include "compress/data/images.h"
#include "compress/data/loader.h"
#include "compress/data/spec.h"
#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/builder.h"
#include "compress/graph/shapes.h"

#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <numbers>
#include <utility>

namespace {

using namespace compress;

// Three stages of convolution, batch norm and ReLU, each at half the size of the one before.
Model small_network() {
  GraphBuilder net;
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 32, 32});
  int64_t channels = 3;
  int64_t index = 0;
  for (const auto& [out, stride] :
       {std::pair<int64_t, int64_t>{16, 1}, {32, 2}, {32, 1}, {64, 2}, {64, 1}}) {
    const auto scope = net.scope(fmt::format("stage{}", index++));
    x = net.conv(x, "conv", channels, out, {.kernel = 3, .stride = stride, .padding = 1});
    x = net.relu(net.batch_norm(x, "bn", out));
    channels = out;
  }
  x = net.linear(net.global_average(x), "linear", channels, 10);
  return initialize(net.finish({{"output", x}}), /*seed=*/1);
}

// Half of the images are seen in the mirror.
void flip(Image& image, SampleRandom& random) {
  if (random.below(2) == 0) return;
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t left = 0, right = image.width - 1; left < right; ++left, --right) {
      for (int64_t c = 0; c < image.channels; ++c) {
        std::swap(image.bytes[static_cast<size_t>((y * image.width + left) * image.channels + c)],
                  image.bytes[static_cast<size_t>((y * image.width + right) * image.channels + c)]);
      }
    }
  }
}

void train(Model& model, const DatasetPtr& data, int epochs) {
  Loader loader(data, {.batch_size = 128, .shuffle = true, .seed = 1, .drop_last = true});
  std::vector<at::Tensor> parameters = model.parameters(), momentum;
  for (at::Tensor& parameter : parameters) {
    parameter.set_requires_grad(true);
    momentum.push_back(at::zeros_like(parameter));
  }
  const auto steps = static_cast<double>(epochs * loader.batches());
  int64_t step = 0;
  model.train();
  for (int epoch = 0; epoch < epochs; ++epoch) {
    loader.start(static_cast<uint64_t>(epoch));
    double loss_sum = 0;
    while (const std::optional<Batch> batch = loader.next()) {
      const double rate =
          0.05 * (1.0 + std::cos(std::numbers::pi * static_cast<double>(step) / steps));
      const at::Tensor loss =
          at::cross_entropy_loss(model.forward(batch->inputs).at(0), batch->labels);
      loss.backward();
      std::vector<at::Tensor> gradients;
      for (at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
      const at::NoGradGuard no_grad;
      at::_fused_sgd_(
          parameters, gradients, momentum, /*weight_decay=*/5e-4, /*momentum=*/0.9, rate,
          /*dampening=*/0.0, /*nesterov=*/true, /*maximize=*/false, /*is_first_step=*/step == 0);
      for (at::Tensor& parameter : parameters) parameter.mutable_grad().reset();
      loss_sum += loss.item<double>();
      ++step;
    }
    fmt::print(stderr, "epoch {} of {}: loss {:.3f}\n", epoch + 1, epochs,
               loss_sum / static_cast<double>(loader.batches()));
  }
  for (at::Tensor& parameter : parameters) parameter.set_requires_grad(false);
  model.eval();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: lathe-train-small OUT.pt2 [EPOCHS]\n");
    return 2;
  }
  try {
    const int epochs = argc == 3 ? std::atoi(argv[2]) : 6;
    if (epochs < 1) throw Error(ErrorCode::kInvalidArgument, "EPOCHS is not a number above 0");
    check_save_path(argv[1]);
    Model model = small_network();
    train(
        model,
        open_data(parse_data_spec("cifar10:train,normalize=imagenet"), {}, {.transforms = {flip}}),
        epochs);
    propagate_shapes(model);
    save_model(model, argv[1]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "lathe-train-small: error: {}\n", error.what());
    return 1;
  }
  return 0;
}
