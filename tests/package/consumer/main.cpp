// The smallest program that uses Lathe: prunes half of a weight.

#include <compress/graph/text.h>
#include <compress/pass_manager.h>
#include <compress/recipe.h>
#include <compress/weight.h>
#include <passes/registry.h>

#include <cstdint>
#include <cstdio>

int main() {
  compress::Model model = compress::parse_model("fc.weight : f32[2,2] = [[1, -4], [3, -2]]");
  const compress::PassRegistry registry = compress::builtin_passes();
  const compress::Recipe recipe = compress::load_recipe("prune.magnitude{sparsity=0.5}", registry);
  compress::run_recipe(recipe, model);
  const at::Tensor weight = compress::weights(model).at(0).effective();
  std::printf("zeroed %d of %d\n",
              static_cast<int>(weight.numel() - weight.count_nonzero().item<int64_t>()),
              static_cast<int>(weight.numel()));
}
