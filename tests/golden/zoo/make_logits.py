"""Writes logits.json: what independent Python implementations of the zoo's networks compute.

Run with torch 2.13, torchvision, timm and transformers:  python make_logits.py
With akamaster's resnet20 file as its argument, it prints what that network computes on a pattern.

Weights and inputs come from one formula on both sides (see `values`), so no weight file is needed.
Networks that torchvision, timm or transformers have are theirs; the others are written out here
from the repositories that the zoo names. Each entry holds the output's sizes, its root mean square,
and 20 elements at equal distances.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# A torchvision wheel beside a CPU torch lacks these two operators and cannot be imported otherwise.
declared = torch.library.Library("torchvision", "DEF")
declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402
import transformers  # noqa: E402


def uniform(name, count):
    """`count` numbers in [-1, 1): a hash of the name (FNV-1a) and the index."""
    seed = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            seed = np.uint32(seed ^ np.uint32(byte)) * np.uint32(16777619)
        x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + seed
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x85EBCA77)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE3D)
        x ^= x >> np.uint32(16)
    return x.astype(np.float64) / 2.0**31 - 1.0


def values(name, shape):
    """A plausible tensor: He-uniform weights, norms near one, small biases."""
    count = int(np.prod(shape))
    u = uniform(name, count)
    if len(shape) >= 2:
        u = u * np.sqrt(6.0 / (count / shape[0]))
    elif name.endswith("running_var"):
        u = 1.0 + 0.5 * np.abs(u)
    elif name.endswith(".weight"):
        u = 1.0 + 0.1 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def fill(model):
    state = model.state_dict()
    filled = {}
    for name, tensor in state.items():
        if tensor.dtype == torch.float32:
            filled[name] = values(name, tuple(tensor.shape))
    if "lm_head.weight" in filled:  # tied to the token embedding, whose name comes first
        filled["lm_head.weight"] = filled["transformer.wte.weight"]
    missing, surplus = model.load_state_dict(filled, strict=False)
    assert not surplus and all(not m.endswith(("weight", "bias")) for m in missing), missing
    return model.eval()


def images(*shape):
    return torch.from_numpy(uniform("input", int(np.prod(shape))).astype(np.float32)).reshape(shape)


def tokens(vocabulary, batch=2, length=7):
    ids = (uniform("input", batch * length) + 1.0) / 2.0 * vocabulary
    return torch.from_numpy(ids.astype(np.int64)).reshape(batch, length)


# ---- networks written out ----------------------------------------------------------------------


class BlockA(nn.Module):  # akamaster/pytorch_resnet_cifar10
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.changes, self.cout = stride != 1 or cin != cout, cout

    def shortcut_of(self, x):
        if not self.changes:
            return x
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.cout // 4, self.cout // 4), "constant", 0)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut_of(x))


class BlockB(BlockA):
    def __init__(self, cin, cout, stride, name):
        super().__init__(cin, cout, stride)
        self.branch = name
        if self.changes:
            conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
            setattr(self, name, nn.Sequential(conv, nn.BatchNorm2d(cout)))

    def shortcut_of(self, x):
        return getattr(self, self.branch)(x) if self.changes else x


class CifarResNet(nn.Module):
    def __init__(self, depth, block, head):
        super().__init__()
        n, self.head = (depth - 2) // 6, head
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        cin = 16
        for i, cout in enumerate((16, 32, 64)):
            blocks = []
            for j in range(n):
                blocks.append(block(cin, cout, 2 if i and not j else 1))
                cin = cout
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        setattr(self, head, nn.Linear(64, 10))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head)(F.avg_pool2d(x, x.size(3)).flatten(1))


class Vgg(nn.Module):  # kuangliu/pytorch-cifar, chenyaofo/pytorch-cifar-models
    PLANS = {
        11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
        13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
        16: [64, 64, "M", 128, 128, "M"] + [256] * 3 + ["M"] + ([512] * 3 + ["M"]) * 2,
        19: [64, 64, "M", 128, 128, "M"] + [256] * 4 + ["M"] + ([512] * 4 + ["M"]) * 2,
    }

    def __init__(self, depth, three):
        super().__init__()
        layers, cin = [], 3
        for item in self.PLANS[depth]:
            if item == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(cin, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU()]
                cin = item
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, 10)
        if three:
            self.classifier = nn.Sequential(
                nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(),
                nn.Linear(512, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Stack(nn.Module):  # "blockN.layer.i" of andreasveit and xternalz
    def __init__(self, layers):
        super().__init__()
        self.layer = nn.Sequential(*layers)

    def forward(self, x):
        return self.layer(x)


class DenseLayer(nn.Module):
    def __init__(self, cin, growth, bottleneck):
        super().__init__()
        inner = 4 * growth if bottleneck else growth
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, inner, 1 if bottleneck else 3, padding=0 if bottleneck else 1, bias=False)
        self.bottleneck = bottleneck
        if bottleneck:
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        if self.bottleneck:
            y = self.conv2(F.relu(self.bn2(y)))
        return torch.cat([x, y], 1)


class Transition(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class DenseNet(nn.Module):  # andreasveit/densenet-pytorch
    def __init__(self, depth, growth, reduction, bottleneck):
        super().__init__()
        n = (depth - 4) // 3 // (2 if bottleneck else 1)
        c = 2 * growth
        self.conv1 = nn.Conv2d(3, c, 3, padding=1, bias=False)
        for i in (1, 2, 3):
            setattr(self, f"block{i}", Stack([DenseLayer(c + j * growth, growth, bottleneck) for j in range(n)]))
            c += n * growth
            if i < 3:
                setattr(self, f"trans{i}", Transition(c, int(c * reduction)))
                c = int(c * reduction)
        self.bn1, self.fc = nn.BatchNorm2d(c), nn.Linear(c, 10)

    def forward(self, x):
        x = self.trans1(self.block1(self.conv1(x)))
        x = self.block3(self.trans2(self.block2(x)))
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.equal = cin == cout
        self.convShortcut = None if self.equal else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        o = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(o))))
        return y + (x if self.equal else self.convShortcut(o))


class WideResNet(nn.Module):  # xternalz/WideResNet-pytorch
    def __init__(self, depth, widen):
        super().__init__()
        n, c = (depth - 4) // 6, 16
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        for i in range(3):
            blocks = []
            for j in range(n):
                blocks.append(WideBlock(c, 16 * widen << i, 2 if i and not j else 1))
                c = 16 * widen << i
            setattr(self, f"block{i + 1}", Stack(blocks))
        self.bn1, self.fc = nn.BatchNorm2d(c), nn.Linear(c, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class LeNet5Caffe(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class LeNet300(nn.Module):
    def __init__(self, prefix):
        super().__init__()
        self.prefix = prefix
        for i, (a, b) in enumerate(((784, 300), (300, 100), (100, 10)), 1):
            setattr(self, f"{prefix}{i}", nn.Linear(a, b))

    def forward(self, x):
        fc = [getattr(self, f"{self.prefix}{i}") for i in (1, 2, 3)]
        return fc[2](F.relu(fc[1](F.relu(fc[0](x.reshape(x.size(0), -1))))))


class Norm(nn.Module):  # layer norm without a bias, as nanoGPT's default
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class NanoBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = Norm(width), Norm(width)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.attn.c_proj = nn.Linear(width, width, bias=False)
        self.mlp.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.mlp.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2)
                   for y in self.attn.c_attn(self.ln_1(x)).split(c, dim=2))
        scores = q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c)
        x = x + self.attn.c_proj(y)
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class NanoGpt(nn.Module):  # karpathy/nanoGPT
    def __init__(self, layers, heads, width, context, vocabulary):
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(vocabulary, width), "wpe": nn.Embedding(context, width),
            "h": nn.ModuleList(NanoBlock(width, heads) for _ in range(layers)), "ln_f": Norm(width)})
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, ids):
        t = self.transformer
        x = t.wte(ids) + t.wpe(torch.arange(ids.shape[1]))
        for block in t.h:
            x = block(x)
        return self.lm_head(t.ln_f(x))


# ---- the list: what the zoo calls it -> (model, input) -------------------------------------------


def cases():
    cifar, grey, large = images(2, 3, 32, 32), images(2, 1, 28, 28), images(2, 3, 224, 224)
    for depth in (20, 32, 44, 56, 110):
        yield f"resnet{depth}-cifar10", CifarResNet(depth, BlockA, "linear"), cifar
        yield f"resnet{depth}b-cifar10", CifarResNet(depth, lambda *a: BlockB(*a, "downsample"), "fc"), cifar
    yield ("resnet20b-cifar10{keys=akamaster}",
           CifarResNet(20, lambda *a: BlockB(*a, "shortcut"), "linear"), cifar)
    for depth in (11, 13, 16, 19):
        yield f"vgg{depth}-cifar10", Vgg(depth, False), cifar
        yield f"vgg{depth}-fc-cifar10", Vgg(depth, True), cifar
    for name in ("resnet18", "resnet34", "resnet50", "mobilenet_v2"):
        yield name, getattr(torchvision.models, name)(), large
    yield "densenet40-cifar10", DenseNet(40, 12, 1.0, False), cifar
    yield ("densenet40-cifar10{depth=100,bottleneck=1,halve=1}", DenseNet(100, 12, 0.5, True), cifar)
    yield "wrn-16-4-cifar10", WideResNet(16, 4), cifar
    yield "lenet5", LeNet5(), grey
    yield "lenet5-caffe", LeNet5Caffe(), grey
    yield "lenet-300-100", LeNet300("fc"), grey
    yield "lenet-300-100{keys=caffe}", LeNet300("ip"), grey
    yield "nanogpt{layers=2,heads=4,width=64,context=16}", NanoGpt(2, 4, 64, 16, 65), tokens(65)
    gpt = transformers.GPT2Config(vocab_size=97, n_positions=16, n_embd=64, n_layer=2, n_head=4,
                                  bos_token_id=0, eos_token_id=0)
    yield ("gpt2{layers=2,heads=4,width=64,context=16,vocabulary=97}",
           transformers.GPT2LMHeadModel(gpt), tokens(97))
    bert = transformers.BertConfig(vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                   intermediate_size=128, max_position_embeddings=16, num_labels=3)
    numbers = "layers=2,heads=4,width=64,hidden=128,context=16,vocabulary=97"
    yield f"bert{{{numbers},keys=transformers}}", transformers.BertModel(bert), tokens(97)
    yield (f"bert-classifier{{{numbers},classes=3}}",
           transformers.BertForSequenceClassification(bert), tokens(97))
    numbers = "layers=2,heads=4,width=64,hidden=128,patch=8,image=32,classes=10"
    yield (f"vit{{{numbers}}}", torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10), cifar)
    yield (f"vit{{{numbers},keys=timm}}", timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2, num_classes=10), cifar)


@torch.no_grad()
def main():
    results = {}
    for name, model, x in cases():
        y = fill(model)(x)
        if not isinstance(y, torch.Tensor):
            y = y.logits if hasattr(y, "logits") else y.last_hidden_state
        flat = y.double().flatten()
        places = torch.arange(20) * flat.numel() // 20
        results[name] = {
            "sizes": list(y.shape),
            "rms": float(flat.square().mean().sqrt()),
            "elements": [float(f"{v:.8g}") for v in flat[places]],
        }
        print(name, results[name]["rms"])
    path = pathlib.Path(__file__).with_name("logits.json")
    path.write_text(json.dumps(results, indent=1) + "\n")


@torch.no_grad()
def checkpoint_logits(path):
    state = torch.load(path, map_location="cpu")["state_dict"]
    model = CifarResNet(20, BlockA, "linear").eval()
    model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=False)
    pattern = (torch.arange(3 * 32 * 32, dtype=torch.float64) * 0.37).sin().float()
    print([round(v, 6) for v in model(pattern.view(1, 3, 32, 32))[0].tolist()])


checkpoint_logits(sys.argv[1]) if len(sys.argv) > 1 else main()
