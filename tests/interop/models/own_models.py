"""The classic networks, written here: CIFAR ResNets, LeNet, U-Net, recurrent ones, DenseNet, Transformers."""

import torch
import torch.nn.functional as F
from torch import nn

from models import BATCH, LARGER, SEQUENCE, Case, features, image, tokens


class BasicBlock(nn.Module):
    """A CIFAR ResNet block; `option` A pads the shortcut's channels with zeros, B projects."""

    def __init__(self, inputs, outputs, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = 0
        self.shortcut = nn.Sequential()
        if stride != 1 and option == "A":
            self.pad = outputs // 4
        elif stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.pad:
            out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        else:
            out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    def __init__(self, option):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, width = [], 16
        for stage, outputs in enumerate((16, 32, 64)):
            for block in range(3):
                blocks.append(BasicBlock(width, outputs, 2 if stage and not block else 1, option))
                width = outputs
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.max_pool2d(torch.tanh(self.conv2(x)), 2)
        x = x.view(x.shape[0], -1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class UNet(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        def double(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
                                 nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        self.down = nn.ModuleList([double(3, width), double(width, 2 * width), double(2 * width, 4 * width)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)])
        self.mix = nn.ModuleList([double(4 * width, 2 * width), double(2 * width, width)])
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for up, mix, skip in zip(self.up, self.mix, (skips[1], skips[0])):
            x = mix(torch.cat([skip, up(x)], 1))
        return self.out(x)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.rnn = kind(12, 16, batch_first=True, **options)
        self.head = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 7)

    def forward(self, x):
        out, state = self.rnn(self.embedding(x))
        return self.head(out), state[0] if isinstance(state, tuple) else state


class DenseNet40(nn.Module):
    """DenseNet-40 of CIFAR with growth 4 instead of 12: the same graph, fewer weights."""

    def __init__(self, growth=4):
        super().__init__()
        def layer(i):
            return nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(inplace=True), nn.Conv2d(i, growth, 3, padding=1, bias=False))
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for block in range(3):
            self.blocks.append(nn.ModuleList([layer(width + growth * i) for i in range(12)]))
            width += 12 * growth
            self.transitions.append(
                nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
                if block == 2 else
                nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1, bias=False), nn.AvgPool2d(2)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions):
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x):
        pre = F.relu(self.bn1(x), inplace=True)
        out = self.conv2(F.dropout(F.relu(self.bn2(self.conv1(pre))), p=0.0, training=self.training))
        return out + (self.shortcut(pre) if self.shortcut is not None else x)


def wide_resnet():
    blocks, width = [nn.Conv2d(3, 8, 3, 1, 1, bias=False)], 8
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(2):
            blocks.append(WideBlock(width, outputs, 2 if stage and not block else 1))
            width = outputs
    return nn.Sequential(*blocks, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class TiedLanguageModel(nn.Module):
    """The output projection is the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        h = self.embedding(x)
        h = h + self.mlp(self.norm(h))
        return F.log_softmax(self.head(h), -1)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3, 2, 1), nn.ELU())
        self.decoder = nn.Sequential(nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1), nn.PReLU(8),
                                     nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1), nn.Sigmoid())

    def forward(self, x):
        code = self.encoder(x)
        return self.decoder(code), code.mean((2, 3))


class ShuffleNet(nn.Module):
    """Grouped convolutions with the channel shuffle of ShuffleNet v1."""

    def __init__(self):
        super().__init__()
        self.reduce = nn.Conv2d(12, 24, 1, groups=3)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.expand = nn.Conv2d(24, 12, 1, groups=3)
        self.bn = nn.BatchNorm2d(24)

    def forward(self, x):
        y = self.reduce(x)
        b, c, h, w = y.shape
        y = y.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
        return F.relu6(x + self.expand(F.hardswish(self.bn(self.depthwise(y)))))


def encoder():
    layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(24), enable_nested_tensor=False)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 48, dropout=0.0, batch_first=True), 2)

    def forward(self, target, memory):
        length = target.shape[1]
        mask = torch.triu(torch.full((length, length), float("-inf")), diagonal=1)
        return self.decoder(target, memory, tgt_mask=mask, tgt_is_causal=True)


def sequences(width):
    return lambda batch, length: (torch.randn(batch, length, width),)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))


BIG = ((4, 8), (6, 13))  # batch norm in training mode over two numbers is ill-conditioned: more images, larger maps
ONE_LENGTH = ((2, 8), (5, 8))  # the exporter unrolls or fixes the length of recurrent networks

CASES = [
    Case("resnet20_a", lambda: ResNet20("A"), image(32), BATCH, retrain=True),
    Case("resnet20_a_train", lambda: ResNet20("A"), image(32), BATCH, train=True, sizes=LARGER, retrain=True),
    Case("resnet20_b_train", lambda: ResNet20("B"), image(32), BATCH, train=True, sizes=LARGER, retrain=True),
    Case("resnet20_fixed_batch", lambda: ResNet20("A"), image(32), BATCH, fixed_batch=True),
    Case("lenet", LeNet, image(28, 1), BATCH),
    Case("lenet_fixed_batch", LeNet, image(28, 1), BATCH, fixed_batch=True),
    Case("unet", UNet, image(32), BATCH),
    Case("unet_train", UNet, image(32), BATCH, train=True, sizes=LARGER, retrain=True),
    Case("lstm", lambda: Recurrent(nn.LSTM, num_layers=2), tokens(50), BATCH, sizes=ONE_LENGTH, retrain=True),
    Case("lstm_bidirectional", lambda: Recurrent(nn.LSTM, bidirectional=True), tokens(50), BATCH, sizes=ONE_LENGTH),
    Case("gru", lambda: Recurrent(nn.GRU), tokens(50), BATCH, sizes=ONE_LENGTH, retrain=True),
    Case("elman_rnn", lambda: Recurrent(nn.RNN), tokens(50), BATCH, sizes=ONE_LENGTH),
    Case("densenet40", DenseNet40, image(32), BATCH),
    Case("densenet40_train", DenseNet40, image(32), BATCH, train=True, sizes=LARGER),
    Case("wide_resnet", wide_resnet, image(32), BATCH),
    Case("wide_resnet_train", wide_resnet, image(32), BATCH, train=True, sizes=LARGER),
    Case("mlp", mlp, features(1, 8, 8), BATCH, retrain=True),
    Case("mlp_train_fixed_batch", mlp, features(1, 8, 8), BATCH, train=True, fixed_batch=True, sizes=((16, 1), (24, 1))),
    Case("tied_language_model", TiedLanguageModel, tokens(40), SEQUENCE),
    Case("autoencoder", AutoEncoder, image(32, 1), BATCH, retrain=True),
    Case("grouped_shuffle", ShuffleNet, image(16, 12), BATCH),
    Case("grouped_shuffle_fixed_batch", ShuffleNet, image(16, 12), BATCH, fixed_batch=True),
    Case("transformer_encoder", encoder, sequences(24), SEQUENCE),
    Case("transformer_encoder_train", encoder, sequences(24), SEQUENCE, train=True, retrain=True),
    Case("transformer_encoder_fixed_batch", encoder, sequences(24), BATCH, fixed_batch=True, sizes=ONE_LENGTH),
    Case("transformer_decoder", Decoder, lambda b, n: (torch.randn(b, n, 24), torch.randn(b, 7, 24)), (("batch", "length"), ("batch",))),
]
