// The list of the zoo's architectures.

#include "compress/zoo/architecture.h"

#include <fmt/format.h>

namespace compress::zoo {
namespace {

void add_cifar_resnets(std::vector<Architecture>& list) {
  for (const int64_t depth : {20, 32, 44, 56, 110}) {
    list.push_back(
        {fmt::format("resnet{}-cifar10", depth),
         fmt::format("ResNet-{} for 32x32 images, shortcuts without weights (option A)", depth),
         cifar_resnet_a(),
         {{"classes", 10}},
         {{"depth", depth}}});
  }
  for (const int64_t depth : {20, 32, 44, 56, 110}) {
    list.push_back(
        {fmt::format("resnet{}b-cifar10", depth),
         fmt::format("ResNet-{} for 32x32 images, 1x1 convolution shortcuts (option B)", depth),
         cifar_resnet_b(),
         {{"classes", 10}},
         {{"depth", depth}}});
  }
}

void add_vggs(std::vector<Architecture>& list) {
  for (const int64_t depth : {11, 13, 16, 19}) {
    list.push_back({fmt::format("vgg{}-cifar10", depth),
                    fmt::format("VGG-{} with batch norm for 32x32 images, one linear layer", depth),
                    vgg(),
                    {{"classes", 10}},
                    {{"depth", depth}}});
  }
  for (const int64_t depth : {11, 13, 16, 19}) {
    list.push_back(
        {fmt::format("vgg{}-fc-cifar10", depth),
         fmt::format("VGG-{} with batch norm for 32x32 images, three linear layers", depth),
         vgg_three_linear(),
         {{"classes", 10}},
         {{"depth", depth}}});
  }
}

void add_other_image_networks(std::vector<Architecture>& list) {
  for (const int64_t depth : {18, 34, 50}) {
    list.push_back({fmt::format("resnet{}", depth),
                    fmt::format("ResNet-{} for ImageNet", depth),
                    resnet(),
                    {{"classes", 1000}},
                    {{"depth", depth}}});
  }
  list.push_back({"mobilenet_v2", "MobileNetV2 for ImageNet", mobilenet_v2(), {{"classes", 1000}}});
  list.push_back(
      {"densenet40-cifar10",
       "DenseNet-40 for 32x32 images, growth 12",
       densenet(),
       {{"depth", 40}, {"growth", 12}, {"bottleneck", 0}, {"halve", 0}, {"classes", 10}}});
  list.push_back({"wrn-16-4-cifar10",
                  "Wide ResNet 16-4 for 32x32 images",
                  wide_resnet(),
                  {{"depth", 16}, {"widen", 4}, {"classes", 10}}});
  list.push_back({"lenet5",
                  "LeNet-5 for 28x28 images (6-16-120-84-10)",
                  lenet5(),
                  {{"padding", 2}, {"classes", 10}}});
  list.push_back({"lenet5-caffe",
                  "LeNet-5 as the pruning literature means it (20-50-500-10)",
                  lenet5_caffe(),
                  {{"conv1", 20}, {"conv2", 50}, {"hidden", 500}, {"classes", 10}}});
  list.push_back({"lenet-300-100",
                  "Multilayer perceptron for 28x28 images (300-100-10)",
                  lenet_300_100(),
                  {{"hidden1", 300}, {"hidden2", 100}, {"classes", 10}}});
}

void add_transformers(std::vector<Architecture>& list) {
  list.push_back({"nanogpt",
                  "GPT of karpathy/nanoGPT, small and at character level",
                  nanogpt(),
                  {{"layers", 6},
                   {"heads", 6},
                   {"width", 384},
                   {"context", 256},
                   {"vocabulary", 65},
                   {"bias", 0}}});
  list.push_back(
      {"gpt2",
       "GPT-2 as in transformers",
       gpt2(),
       {{"layers", 12}, {"heads", 12}, {"width", 768}, {"context", 1024}, {"vocabulary", 50257}}});
  const Parameters::List encoder = {{"layers", 12},   {"heads", 12},    {"width", 768},
                                    {"hidden", 3072}, {"context", 512}, {"vocabulary", 30522},
                                    {"segments", 2}};
  list.push_back({"bert", "BERT encoder as in transformers, token ids in", bert(), encoder});
  Parameters::List classifier = encoder;
  classifier.emplace_back("classes", 2);
  list.push_back({"bert-classifier", "BERT with a classification head", bert_classifier(),
                  std::move(classifier)});
  list.push_back({"vit",
                  "Vision transformer, by default ViT-B/16",
                  vit(),
                  {{"layers", 12},
                   {"heads", 12},
                   {"width", 768},
                   {"hidden", 3072},
                   {"patch", 16},
                   {"image", 224},
                   {"channels", 3},
                   {"classes", 1000}}});
}

}  // namespace

std::vector<Architecture> architectures() {
  std::vector<Architecture> list;
  add_cifar_resnets(list);
  add_vggs(list);
  add_other_image_networks(list);
  add_transformers(list);
  return list;
}

}  // namespace compress::zoo
