"""timm's networks at small input sizes."""

import functools

import models.torchvision_models  # noqa: F401  (makes torchvision, which timm imports, importable beside a CPU torch)
import timm

from models import BATCH, LARGER, Case, image


def create(name, **options):
    return functools.partial(timm.create_model, name, pretrained=False, num_classes=10, **options)


def gmlp():
    from timm.models import mlp_mixer

    return mlp_mixer.MlpMixer(num_classes=10, img_size=64, patch_size=16, num_blocks=2, embed_dim=32, mlp_ratio=6,
                              block_layer=mlp_mixer.SpatialGatingBlock, mlp_layer=mlp_mixer.GatedMlp)


def poolformer():
    from timm.models import metaformer

    return metaformer.MetaFormer(depths=(1, 1, 1, 1), dims=(16, 32, 40, 48), token_mixers=metaformer.Pooling, num_classes=10)


CASES = [
    Case("resnest14", create("resnest14d"), image(64), BATCH),
    Case("ecaresnet", create("eca_resnext26ts"), image(64), BATCH),
    Case("ecaresnet_train", create("eca_resnext26ts"), image(64), BATCH, train=True, sizes=LARGER),
    Case("levit", create("levit_128s", img_size=64), image(64), BATCH),
    Case("mixer", lambda: timm.models.mlp_mixer.MlpMixer(num_classes=10, img_size=64, patch_size=16, embed_dim=64, num_blocks=2), image(64), BATCH),
    Case("poolformer", poolformer, image(64), BATCH),
    Case("xcit", create("xcit_nano_12_p16_224", img_size=64, depth=2), image(64), BATCH),
    Case("coat", create("coat_lite_tiny", img_size=64), image(64), BATCH),
    Case("cait", create("cait_xxs24_224", img_size=64, depth=2, embed_dim=48), image(64), BATCH),
    Case("gmlp", gmlp, image(64), BATCH),
    Case("mobilevit", create("mobilevit_xxs"), image(64), BATCH),
    Case("edgenext", create("edgenext_xx_small"), image(64), BATCH),
    Case("ghostnet", create("ghostnet_050"), image(64), BATCH),
    Case("res2net", create("res2net50_14w_8s", layers=(1, 1, 1, 1)), image(64), BATCH),
    Case("repvgg", create("repvgg_a0"), image(64), BATCH),
    Case("nfnet", create("nf_regnet_b0"), image(64), BATCH),
    Case("convmixer", lambda: timm.models.convmixer.ConvMixer(32, 2, kernel_size=7, patch_size=4, num_classes=10), image(64), BATCH),
    Case("twins", create("twins_svt_small", img_size=64, embed_dims=(16, 32, 48, 64), depths=(1, 1, 2, 1)), image(64), BATCH),
]
