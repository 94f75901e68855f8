// The checkpoints in recipes/checkpoints are what their page says.

#include "compress/files.h"
#include "compress/model.h"
#include "compress/train/label_losses.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace compress::testing {
namespace {

// Characters as the model numbers them: those of the text it was trained on, sorted.
constexpr std::string_view kCharacters =
    "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

double loss_of(const Model& model, const std::string& text) {
  std::vector<int64_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<int64_t>(kCharacters.find(c)));
  const at::Tensor all = at::tensor(tokens, at::kLong).unsqueeze(0);
  const int64_t length = all.size(1) - 1;
  const c10::NoGradGuard no_grad;
  const at::Tensor logits = model.forward({all.narrow(1, 0, length)})[0];
  return cross_entropy(logits, all.narrow(1, 1, length)).item<double>();
}

TEST(OwnCheckpoints, CharGptReadsEnglishBetterThanNoise) {
  const Model model =
      load_model((source_dir() / "recipes/checkpoints/char-gpt.safetensors").string());
  // Shakespeare, but not of the plays that it was trained on.
  const double sonnet = loss_of(model,
                                "Shall I compare thee to a summer's day?\n"
                                "Thou art more lovely and more temperate:\n");
  const double backwards = loss_of(model, ":etarepmet erom dna ylevol erom tra uohT\n");
  EXPECT_LT(sonnet, 2.2);  // of ln(65) = 4.17 nats
  EXPECT_GT(backwards, 3.5);
}

TEST(OwnCheckpoints, VisionTransformerKnowsDrawnTrousersFromABag) {
  const Model model =
      load_model((source_dir() / "recipes/checkpoints/vit-fashion-mnist.safetensors").string());
  at::Tensor trousers = at::zeros({28, 28}), bag = at::zeros({28, 28});
  trousers.narrow(0, 0, 6).narrow(1, 9, 11).fill_(0.8);
  trousers.narrow(0, 6, 22).narrow(1, 9, 4).fill_(0.8);
  trousers.narrow(0, 6, 22).narrow(1, 16, 4).fill_(0.8);
  bag.narrow(0, 11, 15).narrow(1, 2, 24).fill_(0.7);
  bag.narrow(0, 4, 7).narrow(1, 9, 2).fill_(0.7);
  bag.narrow(0, 4, 7).narrow(1, 17, 2).fill_(0.7);
  bag.narrow(0, 4, 2).narrow(1, 9, 10).fill_(0.7);
  const c10::NoGradGuard no_grad;
  const at::Tensor logits =
      model.forward({(at::stack({trousers, bag}).unsqueeze(1) - 0.2860) / 0.3530})[0];
  constexpr int64_t kTrouser = 1, kBag = 8;  // classes of Fashion-MNIST
  EXPECT_EQ(logits.argmax(1)[0].item<int64_t>(), kTrouser) << logits;
  EXPECT_EQ(logits.argmax(1)[1].item<int64_t>(), kBag) << logits;
}

}  // namespace
}  // namespace compress::testing
