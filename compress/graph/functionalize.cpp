// In-place operators become functional ones.
//
// One walk in program order. Every value knows which memory it looks at: a tree of views whose root
// is a tensor of its own. A change of any member makes a new root, found by writing the change
// back through the views, and makes the other members stale; a stale one is taken again from
// its base when something reads it. What could be a view or a copy, depending on strides that
// only a run shows, is a bridge: a change may not have to cross it.

#include "compress/graph/functionalize.h"

#include "compress/error.h"
#include "compress/graph/schema.h"
#include "compress/graph/view_rules.h"
#include "compress/model.h"

#include <ATen/core/function_schema.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

namespace compress {
namespace {

class Functionalizer {
 public:
  explicit Functionalizer(Model& model) : model_(model), graph_(model.graph()), uses_(graph_) {
    size_t position = 0;
    for (Node& node : graph_.nodes()) position_[&node] = ++position;
  }

  void run() {
    std::vector<Node*> nodes;
    for (Node& node : graph_.nodes()) nodes.push_back(&node);
    for (Node* node : nodes) visit(node);
    finish();
  }

 private:
  // A value as the memory it looks at.
  struct Memory {
    Value* base = nullptr;  // what it views; null for a root
    Node* view = nullptr;   // the operator that took the view
    size_t output = 0;      // which of its outputs
    ViewKind kind = ViewKind::kNone;
    Value* current = nullptr;      // what holds the contents now
    uint64_t generation = 0;       // of the root's contents that `current` has
    uint64_t root_generation = 0;  // roots only: how often the contents changed
  };

  Memory& memory(Value* value) {
    auto [entry, is_new] = memory_.try_emplace(value);
    if (is_new) entry->second.current = value;
    return entry->second;
  }
  // The tensor itself, when `value` is another name for it.
  Value* canonical(Value* value) {
    while (memory(value).kind == ViewKind::kSame) value = memory(value).base;
    return value;
  }
  Value* root_of(Value* value) {
    while (memory(value).base != nullptr) value = memory(value).base;
    return value;
  }
  Value* current(Value* value, Node* before);
  void visit(Node* node);
  void resolve_arguments(Node* node);
  void note_views(Node* node);
  void change(Node* node);
  void write_back(Value* value, Node* node);
  void check_bridges(Value* value, const Node* node);
  bool is_read_after(Value* value, const Node* node) const;
  void keep_dtype(Node* node, Value* old_value, Value*& result);
  void change_metadata(Node* node);
  void finish();
  void remove_unread();
  [[noreturn]] void refuse(const Node* node, const std::string& why) const;

  Model& model_;
  Graph& graph_;
  UseMap uses_;
  std::unordered_map<const Node*, size_t> position_;
  std::unordered_map<Value*, Memory> memory_;
  std::unordered_map<Value*, std::vector<Value*>> members_;  // root -> values in that memory
  std::vector<Node*> added_;
  std::vector<Value*> changed_roots_;
};

void Functionalizer::refuse(const Node* node, const std::string& why) const {
  throw Error(
      ErrorCode::kUnsupported, fmt::format("`{}` changes a tensor in place: {}", node->op(), why),
      node->module_path.empty() ? node->outputs().empty() ? node->op() : node->output()->name()
                                : node->module_path,
      "write it without the in-place operator and export the model again");
}

// What holds the contents of `value` for a reader that stands at `before`.
Value* Functionalizer::current(Value* value, Node* before) {
  value = canonical(value);
  Memory& self = memory(value);
  if (self.base == nullptr) return self.current;
  const uint64_t newest = memory(root_of(value)).root_generation;
  if (self.generation == newest) return self.current;
  Value* base = current(self.base, before);
  Memory& view = memory(value);  // the recursion may have moved it
  std::vector<Argument> arguments = view.view->arguments();
  arguments.at(0) = Argument(base);
  std::vector<std::pair<std::string, ValueKind>> outputs;
  for (const Value* output : view.view->outputs())
    outputs.emplace_back(output->name(), output->kind());
  Node* again = graph_.insert_raw(before, view.view->op(), std::move(arguments), outputs);
  again->module_path = view.view->module_path;
  for (size_t i = 0; i < outputs.size(); ++i) {
    again->outputs()[i]->type = view.view->outputs()[i]->type;
  }
  added_.push_back(again);
  view.current = again->outputs()[view.output];
  view.generation = newest;
  return view.current;
}

void Functionalizer::resolve_arguments(Node* node) {
  for (size_t i = 0; i < node->arguments().size(); ++i) {
    Argument argument = node->arguments()[i];
    bool moved = false;
    argument.map_values([&](Value* value) {
      Value* holder = value->kind() == ValueKind::kTensor ? current(value, node) : value;
      moved |= holder != value;
      return holder;
    });
    if (moved) graph_.set_argument(node, i, std::move(argument));
  }
}

void Functionalizer::visit(Node* node) {
  const c10::FunctionSchema* schema = node->schema();
  if (schema != nullptr && changes_metadata(*node)) {
    change_metadata(node);
  } else if (schema != nullptr && schema->is_mutable() && !updates_own_statistics(*node)) {
    change(node);
  } else {
    note_views(node);
    resolve_arguments(node);
  }
}

// Called before the arguments are resolved: bases are values of the program as it was.
void Functionalizer::note_views(Node* node) {
  const ViewKind kind = view_kind(*node);
  if (kind == ViewKind::kNone || node->arguments().empty()) return;
  Value* base = node->arguments()[0].value();
  if (base == nullptr || base->kind() != ValueKind::kTensor) return;
  base = canonical(base);
  Value* root = root_of(base);
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    Value* view = node->outputs()[i];
    Memory& self = memory(view);
    self.base = base;
    self.view = node;
    self.output = i;
    self.kind = kind;
    self.generation = memory(root).root_generation;
    members_[root].push_back(view);
  }
}

// `unsqueeze_` and the like give the value itself another shape: from here on, it is the view.
void Functionalizer::change_metadata(Node* node) {
  Value* value = node->arguments().at(0).value();
  const std::string twin = functional_twin(node->op());
  if (value == nullptr || twin.empty()) refuse(node, "there is no functional form of it");
  graph_.set_op(node, twin);
  note_views(node);
  resolve_arguments(node);
  // Later readers of the old name mean the new shape.
  const size_t here = position_.at(node);
  for (const Use& use : uses_.of(value)) {
    if (use.node == nullptr || position_.at(use.node) <= here) continue;
    Argument argument = use.node->arguments()[use.index];
    argument.map_values([&](Value* used) { return used == value ? node->output() : used; });
    graph_.set_argument(use.node, use.index, std::move(argument));
  }
  const auto replace = [&](std::vector<Output> outputs) {
    for (Output& output : outputs) {
      output.value.map_values([&](Value* used) { return used == value ? node->output() : used; });
    }
    return outputs;
  };
  graph_.set_outputs(replace(graph_.outputs()));
  uses_ = UseMap(graph_);
}

bool Functionalizer::is_read_after(Value* value, const Node* node) const {
  const size_t here = position_.at(node);
  for (const Use& use : uses_.of(value)) {
    if (use.node == nullptr) return true;
    const auto place = position_.find(use.node);
    if (place != position_.end() && place->second > here) return true;
  }
  return false;
}

// A change must not have to cross a bridge: beyond it, nobody may look at the memory any more.
void Functionalizer::check_bridges(Value* value, const Node* node) {
  Value* root = root_of(value);
  // The highest value that the change reaches surely.
  const auto top_of = [&](Value* member) {
    while (memory(member).base != nullptr &&
           (memory(member).kind == ViewKind::kExact || memory(member).kind == ViewKind::kSame)) {
      member = memory(member).base;
    }
    return member;
  };
  Value* top = top_of(value);
  const auto follows = [&](Value* member) {
    for (; member != top; member = memory(member).base) {
      if (memory(member).base == nullptr || memory(member).kind == ViewKind::kBridge) return false;
    }
    return true;
  };
  std::vector<Value*> members = members_[root];
  members.push_back(root);
  for (Value* member : members) {
    if (member == value || follows(member)) continue;
    // The caller's own tensor is not ours to change, and a tensor of the model always is read
    // again.
    const bool stays = member->is_named_tensor();
    if (!stays && !is_read_after(member, node)) continue;
    refuse(node, fmt::format("`{}` may share its memory and is read afterwards", member->name()));
  }
}

// Makes `value`'s new contents those of all that it views.
void Functionalizer::write_back(Value* value, Node* node) {
  Value* root = root_of(value);
  const uint64_t newest = ++memory(root).root_generation;
  memory(value).generation = newest;
  while (memory(value).base != nullptr && memory(value).kind == ViewKind::kExact) {
    const Memory self = memory(value);
    // The node after `node`, so that the new contents exist.
    auto next = std::find_if(graph_.nodes().begin(), graph_.nodes().end(),
                             [&](const Node& other) { return &other == self.current->producer(); });
    ++next;
    Node* before = next == graph_.nodes().end() ? nullptr : &*next;
    Value* base_contents = memory(self.base).current;
    Value* contents =
        insert_write_back(graph_, before, *self.view, self.output, base_contents, self.current);
    if (contents == nullptr) refuse(node, "sizes that are unknown keep it from being followed");
    if (contents != self.current) {
      contents->type = self.base->type;
      contents->producer()->module_path = node->module_path;
      added_.push_back(contents->producer());
    }
    memory(self.base).current = contents;
    memory(self.base).generation = newest;
    value = self.base;
  }
  // Beyond a bridge nobody looks: what was there keeps its old contents, read before.
  if (memory(value).base == nullptr) changed_roots_.push_back(value);
}

// In-place arithmetic keeps the dtype of its tensor; the functional twin would promote it.
void Functionalizer::keep_dtype(Node* node, Value* old_value, Value*& result) {
  const std::optional<c10::ScalarType> wanted = old_value->type.dtype;
  if (!wanted || keeps_dtype_of_self(node->op())) return;
  bool promotes = false;
  for (size_t i = 1; i < node->arguments().size(); ++i) {
    node->arguments()[i].each_value([&](Value* other) {
      const bool tensor = other->kind() == ValueKind::kTensor;
      promotes |= tensor && other->type.dtype && *other->type.dtype != *wanted;
    });
  }
  if (!promotes) return;
  const auto position = std::find_if(graph_.nodes().begin(), graph_.nodes().end(),
                                     [&](const Node& other) { return &other == node; });
  const auto next = std::next(position);
  Node* convert =
      graph_.insert(next == graph_.nodes().end() ? nullptr : &*next,
                    {"aten::to.dtype", {Argument(result), *wanted}, {}, {}, 1, node->module_path});
  convert->output()->type = old_value->type;
  result = convert->output();
}

void Functionalizer::change(Node* node) {
  const std::string twin = functional_twin(node->op());
  Value* value = node->arguments().empty() ? nullptr : node->arguments()[0].value();
  if (twin.empty() || value == nullptr || node->outputs().size() != 1) {
    refuse(node, "there is no functional form of it");
  }
  value = canonical(value);
  Value* root = root_of(value);
  if (root->is_named_tensor()) {
    const NamedTensor* tensor = model_.find_tensor(root->name());
    if (tensor != nullptr && tensor->role == TensorRole::kParameter) {
      refuse(node, fmt::format("it would overwrite the parameter `{}`", root->name()));
    }
  }
  check_bridges(value, node);
  resolve_arguments(node);
  graph_.set_op(node, twin);
  Value* result = node->output();
  keep_dtype(node, value, result);
  memory(value).current = result;
  // The operator returns the tensor that it changed: both names mean the same memory from here on.
  Memory& returned = memory(node->output());
  returned = Memory{value, nullptr, 0, ViewKind::kSame, result, 0, 0};
  members_[root].push_back(node->output());
  write_back(value, node);
}

void Functionalizer::finish() {
  const auto resolve = [&](std::vector<Output> outputs) {
    for (Output& output : outputs) {
      output.value.map_values([&](Value* value) {
        return value->kind() == ValueKind::kTensor ? current(value, nullptr) : value;
      });
    }
    return outputs;
  };
  graph_.set_outputs(resolve(graph_.outputs()));
  std::vector<Output> updates = resolve(graph_.updates());
  std::set<const Value*> seen;
  for (Value* root : changed_roots_) {
    if (!seen.insert(root).second) continue;
    if (root->is_named_tensor()) {
      NamedTensor* tensor = model_.find_tensor(root->name());
      if (tensor != nullptr) tensor->role = TensorRole::kBuffer;  // it is state, saved or not
      updates.push_back({root->name(), Argument(memory(root).current)});
    } else if (root->is_input()) {
      model_.notes.push_back(fmt::format(
          "the exported function overwrites its input `{}`; here the input is kept", root->name()));
    }
  }
  graph_.set_updates(std::move(updates));
  remove_unread();
}

void Functionalizer::remove_unread() {
  const UseMap uses(graph_);
  std::unordered_map<const Value*, size_t> readers;
  const auto count = [&](const Value* value) -> size_t& {
    return readers.try_emplace(value, uses.of(value).size()).first->second;
  };
  for (auto node = added_.rbegin(); node != added_.rend(); ++node) {
    const bool unread = std::all_of((*node)->outputs().begin(), (*node)->outputs().end(),
                                    [&](const Value* output) { return count(output) == 0; });
    if (!unread) continue;
    for (const Argument& argument : (*node)->arguments()) {
      argument.each_value([&](Value* value) {
        if (size_t& left = count(value); left > 0) --left;
      });
    }
    graph_.erase(*node);
  }
}

}  // namespace

void functionalize(Model& model) { Functionalizer(model).run(); }

}  // namespace compress
