"""torchvision's networks, some narrowed so that their files stay small; the graph forms are those of the full ones."""

import torch
from torch import nn

# torchvision from the package index is built against a CUDA torch; beside a CPU torch its import dies without these two schemas.
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision.models as zoo  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.models.detection.rpn import RPNHead  # noqa: E402
from torchvision.models.segmentation.deeplabv3 import DeepLabHead  # noqa: E402
from torchvision.models.segmentation.fcn import FCNHead  # noqa: E402

from models import BATCH, LARGER, Case, image  # noqa: E402


def vgg11_bn():
    model = zoo.vgg11_bn(num_classes=2)
    features = zoo.vgg.make_layers([16, "M", 32, "M", 64, 64, "M", 64, 64, "M"], batch_norm=True)
    model.features, model.classifier = features, nn.Sequential(nn.Linear(64 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    return model


def googlenet():
    return zoo.GoogLeNet(num_classes=10, aux_logits=False, init_weights=False)


def convnext():
    block = zoo.convnext.CNBlockConfig
    return zoo.ConvNeXt([block(24, 48, 1), block(48, 96, 2), block(96, None, 1)], num_classes=10)


def vit():
    return zoo.VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10)


def swin(version):
    return zoo.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10, block=version[0], downsample_layer=version[1])


def maxvit():
    return zoo.MaxVit(input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[16, 32], block_layers=[1, 1],
                      head_dim=8, stochastic_depth_prob=0.0, num_classes=10)


class Detector(nn.Module):
    """A detector's backbone with its feature pyramid, and the region proposal head."""

    def __init__(self):
        super().__init__()
        self.backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        self.head = RPNHead(256, 3)

    def forward(self, x):
        return self.head(list(self.backbone(x).values()))


class Segmenter(nn.Module):
    def __init__(self, head):
        super().__init__()
        body = zoo.resnet18(num_classes=2)
        self.body = nn.Sequential(*list(body.children())[:-2])
        self.head = head

    def forward(self, x):
        return nn.functional.interpolate(self.head(self.body(x)), size=x.shape[-2:], mode="bilinear", align_corners=False)


_SWIN = zoo.swin_transformer
CASES = [
    Case("resnet18", lambda: zoo.resnet18(num_classes=10), image(64), BATCH, retrain=True),
    Case("resnet18_train", lambda: zoo.resnet18(num_classes=10), image(64), BATCH, train=True, sizes=LARGER),
    Case("resnet18_fixed_batch", lambda: zoo.resnet18(num_classes=10), image(64), BATCH, fixed_batch=True),
    Case("resnet50", lambda: zoo.resnet50(num_classes=10), image(64), BATCH),
    Case("wide_resnext", lambda: zoo.ResNet(zoo.resnet.Bottleneck, [1, 1, 1, 1], 10, groups=4, width_per_group=4), image(64), BATCH),
    Case("vgg11_bn", vgg11_bn, image(32), BATCH),
    Case("vgg11_bn_fixed_batch", vgg11_bn, image(32), BATCH, fixed_batch=True),
    Case("mobilenet_v2", lambda: zoo.mobilenet_v2(num_classes=10, width_mult=0.5), image(64), BATCH),
    Case("mobilenet_v2_train", lambda: zoo.mobilenet_v2(num_classes=10, width_mult=0.5, dropout=0.0), image(64), BATCH, train=True, sizes=LARGER),
    Case("mobilenet_v3_small", lambda: zoo.mobilenet_v3_small(num_classes=10), image(64), BATCH),
    Case("densenet121", lambda: zoo.densenet121(num_classes=10), image(64), BATCH),
    Case("squeezenet", lambda: zoo.squeezenet1_1(num_classes=10), image(64), BATCH),
    Case("shufflenet_v2", lambda: zoo.shufflenet_v2_x0_5(num_classes=10), image(64), BATCH, retrain=True),
    Case("efficientnet_b0", lambda: zoo.efficientnet_b0(num_classes=10), image(64), BATCH),
    Case("googlenet", googlenet, image(64), BATCH),
    Case("convnext", convnext, image(64), BATCH),
    Case("regnet_y", lambda: zoo.regnet_y_400mf(num_classes=10), image(64), BATCH),
    Case("mnasnet", lambda: zoo.mnasnet0_5(num_classes=10), image(64), BATCH),
    Case("vit", vit, image(32), BATCH, retrain=True),
    Case("vit_fixed_batch", vit, image(32), BATCH, fixed_batch=True),
    Case("swin", lambda: swin((_SWIN.SwinTransformerBlock, _SWIN.PatchMerging)), image(32), BATCH),
    Case("swin_v2", lambda: swin((_SWIN.SwinTransformerBlockV2, _SWIN.PatchMergingV2)), image(32), BATCH),
    Case("maxvit", maxvit, image(64), BATCH),
    Case("detector_fpn", Detector, image(64), BATCH),
    Case("deeplab", lambda: Segmenter(DeepLabHead(512, 5, atrous_rates=(1, 2, 3))), image(64), BATCH),
    Case("fcn", lambda: Segmenter(FCNHead(512, 5)), image(64), BATCH),
]
