"""Small networks with graph forms that a model toolkit trips over: reuse, several inputs and outputs, writes into views, 1-D and 3-D."""

import torch
import torch.nn.functional as F
from torch import nn

from models import BATCH, LARGER, Case, features, image


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=2, dilation=2)
        self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm1d(8, affine=True)
        self.batch, self.rms = nn.BatchNorm1d(8), nn.RMSNorm(20)

    def forward(self, x):
        y = self.conv(x)
        return self.rms(F.silu(self.group(y)) + F.mish(self.instance(y)) * F.softplus(self.batch(y)))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.MaxPool3d(2),
                                 nn.Conv3d(4, 8, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x)


class Siamese(nn.Module):
    """One encoder used twice, two inputs, a dictionary of outputs."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 8))
        self.register_buffer("temperature", torch.tensor(0.7))

    def forward(self, left, right):
        a, b = self.encoder(left), self.encoder(right)
        return {"similarity": F.cosine_similarity(a, b) / self.temperature, "codes": (a, b)}


class SuperResolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5, padding=2, padding_mode="reflect"), nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x):
        fine = F.pixel_shuffle(self.conv2(torch.relu_(self.conv1(x))), 2)
        return fine + F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class InPlace(nn.Module):
    """Writes into views and reuses what it wrote over."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        y = self.fc(x).relu_()
        z = y.clone()
        z[:, :3] *= 2
        z[:, 4] = y[:, 0]
        return z.add_(x).clamp_(max=4).mul_(0.5), y.sigmoid_()


CASES = [
    Case("norms_1d", Norms, features(6, 20), BATCH, retrain=True),
    Case("volume_3d_train", Volume, features(2, 8, 8, 8), BATCH, train=True, sizes=LARGER),
    Case("siamese", Siamese, lambda b, n: (torch.randn(b, 10), torch.randn(b, 10)), BATCH * 2, retrain=True),
    Case("super_resolution", SuperResolution, image(16, 1), BATCH),
    Case("in_place", InPlace, features(6), BATCH),
]
