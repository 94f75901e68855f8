# Makes the golden images of this folder: pip install pillow numpy, then python3 make_images.py.
#
# X.png / X.jpg are inputs; X.ppm is what Pillow reads them as (convert("RGB")), X.pgm as grey
# (convert("L")). resize_WxH.ppm are Pillow's bilinear resizes of rgb.png. Made with Pillow 13.0.0.
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

here = Path(__file__).parent
rng = np.random.default_rng(0)
height, width = 31, 41
y, x = np.mgrid[0:height, 0:width]
base = np.stack([x * 6 % 256, y * 8 % 256, (x * y) % 256], -1)
pixels = np.clip(base + rng.integers(-30, 30, base.shape), 0, 255).astype(np.uint8)
smooth = np.stack([x * 6, y * 8, 255 - x * 3 - y * 4], -1).clip(0, 255).astype(np.uint8)


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def write_png(name, width, height, depth, color, interlace, raw):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9))
    (here / name).write_bytes(data + chunk(b"IEND", b""))


def expected(name, grey=False):
    stem = here / name.rsplit(".", 1)[0]
    with Image.open(here / name) as image:
        image.convert("RGB").save(stem.with_suffix(".ppm"))
        if grey:
            image.convert("L").save(stem.with_suffix(".pgm"))


rgb = Image.fromarray(pixels)
rgb.save(here / "rgb.png")
rgb.convert("L").save(here / "grey.png")
rgb.convert("1").save(here / "bilevel.png")
rgb.quantize(13).save(here / "palette.png")
rgb.convert("RGBA").save(here / "rgba.png")
with Image.open(here / "rgba.png") as image:
    image.putalpha(Image.fromarray((x * 5).astype(np.uint8)))
    image.save(here / "rgba.png")
wide = pixels.astype(">u2") * 256 + rng.integers(0, 256, pixels.shape)
rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
write_png("rgb16.png", width, height, 16, 2, 0, rows)
adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
raw = b"".join(
    b"\0" + row.tobytes() for left, top, dx, dy in adam7 for row in pixels[top::dy, left::dx]
)
write_png("interlaced.png", width, height, 8, 2, 1, raw)
for name in ["rgb.png", "grey.png", "bilevel.png", "palette.png", "rgba.png", "rgb16.png", "interlaced.png"]:
    expected(name, grey=name == "rgb.png")

picture = Image.fromarray(smooth)
picture.save(here / "baseline.jpg", quality=90)
picture.save(here / "full_chroma.jpg", quality=90, subsampling=0)
picture.save(here / "progressive.jpg", quality=90, progressive=True)
picture.convert("L").save(here / "grey_jpeg.jpg", quality=90)
picture.convert("CMYK").save(here / "cmyk.jpg", quality=90)
for name in ["baseline.jpg", "full_chroma.jpg", "progressive.jpg", "grey_jpeg.jpg", "cmyk.jpg"]:
    expected(name, grey=name == "baseline.jpg")

for w, h in [(17, 13), (80, 60), (41, 10), (9, 31), (1, 1)]:
    rgb.resize((w, h), Image.BILINEAR).save(here / f"resize_{w}x{h}.ppm")
# torchvision: Resize(20), CenterCrop(16), by its formulas.
scaled = rgb.resize((20 * width // height, 20), Image.BILINEAR)
left, top = round((scaled.width - 16) / 2), round((scaled.height - 16) / 2)
scaled.crop((left, top, left + 16, top + 16)).save(here / "resize20_crop16.ppm")
rgb.convert("L").resize((17, 13), Image.BILINEAR).save(here / "resize_17x13.pgm")
