"""How the interop tests call Torch-Pruning: its groups by the names and dimensions of tensors, and its surgery.

It is told what its users have to tell it, the layers that make the outputs and the heads of `nn.MultiheadAttention`, and nothing else.
"""

import contextlib
import copy
import dataclasses
import signal
import warnings

import torch
import torch_pruning as tp
from torch import nn

LONGEST = 20
"""Seconds of processor time for one network; most take Torch-Pruning less than one, the longest that it finishes ten."""
ROOTS = (nn.modules.conv._ConvNd, nn.Linear, nn.LSTM)


def leaves(result):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def run(model, inputs):
    """Outputs with a gradient function, which Torch-Pruning follows."""
    with torch.enable_grad():
        return leaves(model(*inputs))


def output_layers(model, inputs):
    """The last layers with parameters before the results of the network: their channels are not ours to remove."""
    made = {}

    def note(module, _, result):
        for leaf in leaves(result):
            made.setdefault(leaf.grad_fn, module)  # the innermost module comes first

    layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    hooks = [module.register_forward_hook(note) for module in layers]
    ahead = [output.grad_fn for output in run(model, inputs)]
    for hook in hooks:
        hook.remove()
    found, seen = [], set()
    while ahead:
        step = ahead.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            found.append(made[step])
        else:
            ahead += [before for before, _ in step.next_functions]
    return found


def heads(model):
    return {module: module.num_heads for module in model.modules() if isinstance(module, nn.MultiheadAttention)}


def graph_of(model, inputs):
    return tp.DependencyGraph().build_dependency(model, inputs, forward_fn=run, verbose=False)


def all_groups(graph, model, inputs):
    return graph.get_all_groups(ignored_layers=output_layers(model, inputs), root_module_types=list(ROOTS))


def cuts(graph, item, names):
    """The (tensor, dimension) pairs that one step of Torch-Pruning's plan slices."""
    module, out = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
    if isinstance(module, nn.Parameter):
        return [(names[id(module)], graph.module2node[module].pruning_dim)]
    if isinstance(module, nn.modules.conv._ConvNd):
        # A depthwise convolution's pruner is the same for both sides.
        out = item.dep.handler is not tp.prune_conv_in_channels and out
        weight_dim = int(module.transposed) if out else 1 - int(module.transposed)
        pairs = [(module.weight, weight_dim)] + ([(module.bias, 0)] if out else [])
    elif isinstance(module, nn.Linear):
        pairs = [(module.weight, 0), (module.bias, 0)] if out else [(module.weight, 1)]
    elif isinstance(module, nn.Embedding):
        pairs = [(module.weight, 1)]
    elif isinstance(module, nn.MultiheadAttention):
        pairs = [(module.in_proj_weight, 0), (module.in_proj_weight, 1), (module.in_proj_bias, 0),
                 (module.out_proj.weight, 0), (module.out_proj.weight, 1), (module.out_proj.bias, 0)]
    elif isinstance(module, nn.LSTM):
        part = ("weight_hh", "bias_hh", "bias_ih") if out else ("weight_ih",)
        pairs = [(tensor, 0 if out else 1) for name, tensor in module.named_parameters() if name.startswith(part)]
    elif isinstance(module, nn.Module) and next(module.parameters(recurse=False), None) is not None:
        pairs = [(tensor, tensor.dim() - 1) for tensor in module.parameters(recurse=False)]
        pairs += [(tensor, 0) for tensor in module.buffers(recurse=False) if tensor.dim() == 1]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        pairs = [(tensor, 0) for tensor in module.buffers(recurse=False) if tensor.dim() == 1]
    else:
        return []
    return [(names[id(tensor)], dim) for tensor, dim in pairs if tensor is not None]


def groups_of(model, inputs):
    """For each set of channels that Torch-Pruning couples, the (tensor, dimension) pairs that it slices.

    One of its groups is all output channels of a layer; where these differ in what goes with them, as behind a split, each kind counts.
    """
    model = copy.deepcopy(model).eval()
    names = {id(tensor): name for name, tensor in [*model.named_buffers(), *model.named_parameters()]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = graph_of(model, inputs)
        found = set()
        for group in all_groups(graph, model, inputs):
            by_root = {}
            for item in group.items:
                pairs = cuts(graph, item, names)
                for root in item.root_idxs:
                    by_root.setdefault(root, set()).update(pairs)
            found.update(frozenset(pairs) for pairs in by_root.values() if pairs)
    return found


def prune_half(model, inputs):
    """Analysis and surgery without scores: every second of each group's channels goes."""
    graph = graph_of(model, inputs)
    for group in all_groups(graph, model, inputs):
        root = group[0].dep
        channels = graph.get_out_channels(root.target.module)
        smaller = graph.get_pruning_group(root.target.module, root.handler, list(range(1, channels, 2)))
        if channels > 1 and graph.check_pruning_group(smaller):
            smaller.prune()


def prune_by_norm(model, inputs):
    """Half of each group's channels, those of the least L2 norm, by Torch-Pruning's own pruner.

    It scores a group after it has cut those before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model, inputs, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=0.5, global_pruning=False,
            ignored_layers=output_layers(model, inputs), num_heads=heads(model), forward_fn=run)
        pruner.step()


def prune_by_first_norm(model, inputs):
    """The same with the scores that all groups have before anything is cut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph, score = graph_of(model, inputs), tp.importance.GroupMagnitudeImportance(p=2)
        chosen = []
        for group in all_groups(graph, model, inputs):
            scores = score(group)
            chosen.append((group[0].dep, scores.argsort(stable=True)[:len(scores) // 2].tolist()))
        for root, channels in chosen:
            graph.get_pruning_group(root.target.module, root.handler, channels).prune()


@contextlib.contextmanager
def within(seconds):
    """Raises TimeoutError in the main thread when the body takes more processor time."""
    def stop(*_):
        raise TimeoutError(f"not done after {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclasses.dataclass(frozen=True)
class Outcome:
    problem: str
    """Empty where the smaller network runs and its outputs have the sizes that they had."""
    kept: float = 1.0
    """The share of the parameters that is left."""


def try_pruning(model, inputs):
    """What becomes of a network whose channels Torch-Pruning halves by their norms."""
    model = copy.deepcopy(model).eval()
    before = [output.shape for output in run(model, inputs)]
    parameters = sum(tensor.numel() for tensor in model.parameters())
    try:
        with within(LONGEST):
            prune_by_norm(model, inputs)
    except Exception as error:
        return Outcome(f"stops: {type(error).__name__}: {first_line(error)}")
    kept = sum(tensor.numel() for tensor in model.parameters()) / parameters
    try:
        after = [output.shape for output in run(model, inputs)]
    except Exception as error:
        return Outcome(f"does not run afterwards: {type(error).__name__}: {first_line(error)}", kept)
    if after != before:
        return Outcome("changes the sizes of the outputs", kept)
    return Outcome("" if kept < 1 else "finds nothing to remove", kept)


def first_line(error):
    text = str(error).strip()
    return text.splitlines()[0][:100] if text else ""
