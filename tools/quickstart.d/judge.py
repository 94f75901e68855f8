"""Asks Python's torch what it makes of the files that quickstart wrote.

usage: judge.py FOLDER CIFAR10: prints the top-1 accuracy on the 10,000 test images of compressed.pt2, run by
torch.export, and of compressed.safetensors, decoded here and run by a network written out below. Nothing
of Lathe is imported.
"""

import json
import pathlib
import sys

import numpy
import torch
import torch.nn.functional as F

BATCH = 250
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_images(folder):
    """The 10,000 images [n, 3, 32, 32], normalised, and their labels."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    sheet = numpy.asarray(Image.open(folder / "test_batch.png").convert("RGB"))  # one image a row
    images = torch.from_numpy(sheet.copy()).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
    return images, torch.tensor(json.loads((folder / "test_lables.json").read_text()))


def accuracy(network, images, labels):
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), BATCH):
            logits = network(images[start : start + BATCH])
            correct += int((logits.argmax(1) == labels[start : start + BATCH]).sum())
    return 100.0 * correct / len(labels)


def read_safetensors(path):
    """Tensors by name, and the metadata."""
    dtypes = {"F32": torch.float32, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8, "I8": torch.int8, "BOOL": torch.bool}
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + size]))
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        raw = torch.frombuffer(bytearray(data[begin:end]), dtype=dtypes[entry["dtype"]])
        tensors[name] = raw.reshape(entry["shape"])
    return tensors, metadata


def unpack(words, count, bits):
    """Rows of a little-endian bit stream in int32 words -> integers [rows, count]."""
    octets = words.contiguous().view(torch.uint8).numpy()
    stream = numpy.unpackbits(octets, axis=1, bitorder="little")[:, : count * bits].reshape(len(octets), count, bits)
    return torch.from_numpy((stream.astype(numpy.int64) << numpy.arange(bits)).sum(-1))


def decode(tensors, metadata):
    """The plain weights of a file in the layout of compressed-tensors."""
    shapes = json.loads(metadata.get("lathe.shapes", "{}"))
    config = json.loads(metadata["quantization_config"])
    bits_of = {name: group["weights"]["num_bits"] for group in config["config_groups"].values() for name in group["targets"]}
    weights = {}
    for name, tensor in tensors.items():
        if not name.endswith(".weight_packed"):
            if ".weight_" not in name:
                weights[name] = tensor
            continue
        layer = name[: -len(".weight_packed")]
        bits, (rows, columns) = bits_of[layer], tensors[layer + ".weight_shape"].tolist()
        codes = unpack(tensor, columns, bits) - 2 ** (bits - 1)
        if layer + ".weight_zero_point" in tensors:  # packed along the rows
            zero_point = unpack(tensors[layer + ".weight_zero_point"].T.contiguous(), rows, bits).T - 2 ** (bits - 1)
        else:
            zero_point = 0
        weight = (codes - zero_point).float() * tensors[layer + ".weight_scale"]
        weights[layer + ".weight"] = weight.reshape(shapes.get(layer + ".weight", [rows, columns]))
    return weights


def resnet20(w, x):
    """ResNet-20 with option-A shortcuts (He et al. 2015), its batch norms folded."""
    x = F.relu(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(F.conv2d(x, w[name + ".conv1.weight"], w[name + ".conv1.bias"], stride=stride, padding=1))
            y = F.conv2d(y, w[name + ".conv2.weight"], w[name + ".conv2.bias"], padding=1)
            if stride == 2:
                extra = x.shape[1] // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])


def small(w, x):
    """The network of train_small.cpp, its batch norms folded."""
    for stage in range(5):
        name = f"stage{stage}.conv"
        x = F.relu(F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride=2 if stage in (1, 3) else 1, padding=1))
    return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])


def main(work, cifar):
    images, labels = test_images(pathlib.Path(cifar))
    program = torch.export.load(pathlib.Path(work, "compressed.pt2")).module()
    weights = decode(*read_safetensors(pathlib.Path(work, "compressed.safetensors")))
    network = small if "stage0.conv.weight" in weights else resnet20
    print(accuracy(program, images, labels), accuracy(lambda x: network(weights, x), images, labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
