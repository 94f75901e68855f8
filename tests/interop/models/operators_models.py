"""Operators that no list of supported operators would have: Lathe runs them because LibTorch's dispatcher does."""

import torch
import torch.nn.functional as F
from torch import nn

from models import BATCH, Case


class Function(nn.Module):
    """A function of the inputs and of one weight, so that the program has a parameter like any other."""

    def __init__(self, function, *sizes):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(*sizes))

    def forward(self, *inputs):
        return self.function(self.weight, *inputs)


def special(w, x):
    y = x * w
    return (torch.special.bessel_j0(y), torch.special.i0e(y), torch.special.erfcx(y), torch.special.entr(y.abs()),
            torch.special.ndtri(y.sigmoid()), torch.special.polygamma(1, y.abs() + 1), torch.special.zeta(y.abs() + 1.5, y.abs() + 1),
            torch.special.xlog1py(y, y.abs()), torch.lgamma(y.abs() + 0.1), torch.special.log_ndtr(y))


def linear_algebra(w, x):
    a = x @ x.mT + 4 * torch.eye(4) + (w @ w.T)
    return (torch.linalg.cholesky(a), torch.linalg.solve(a, x), torch.linalg.inv(a), torch.linalg.det(a), torch.linalg.svdvals(x),
            torch.linalg.eigvalsh(a), torch.matrix_exp(a / 20), torch.linalg.lu_factor(a)[0], torch.linalg.qr(a)[1].abs(),
            torch.linalg.matrix_norm(x), torch.linalg.vector_norm(x, 3, -1), torch.trapezoid(x), torch.linalg.pinv(w))


def fourier(w, x):
    spectrum = torch.fft.rfft2(x * w)
    wave = torch.stft(x.flatten(1), 16, window=torch.hann_window(16), return_complex=True)
    return (torch.fft.irfft2(spectrum * torch.polar(spectrum.abs().sqrt(), spectrum.angle())), spectrum.real, torch.view_as_real(wave),
            torch.fft.fftshift(torch.fft.hfft(spectrum)), torch.fft.ifft(x).imag)


def sorting(w, x):
    y = x + w
    values, indices = torch.topk(y, 3)
    low, high = torch.aminmax(y, dim=-1)
    return (values, indices, torch.sort(y, descending=True).values, torch.argsort(y), torch.kthvalue(y, 2).values, torch.median(y, -1).indices,
            torch.quantile(y, 0.3, dim=-1), low, high, torch.searchsorted(torch.sort(w.flatten()).values, y), torch.bucketize(y, torch.tensor([-1.0, 0.0, 1.0])),
            torch.cummax(y, -1).values, torch.logcumsumexp(y, -1), torch.cumprod(y, -1), torch.histc(y, 5), torch.diff(y), torch.nanmean(y, -1),
            torch.renorm(y, 2, 0, 1.0))


def indexing(w, x):
    index = torch.tensor([[0, 2, 1, 0, 3]]).expand(x.shape[0], -1)
    zeros = torch.zeros_like(x)
    return (zeros.scatter_reduce(1, index, x, "amax", include_self=False), zeros.scatter_add(1, index, x), x.gather(1, index),
            x.index_add(1, torch.tensor([1, 1]), w[:2].expand(x.shape[0], 2)), torch.index_put(x, (torch.tensor([0, 1]),), w[0], accumulate=True),
            x.masked_fill(x > 0, -1), torch.where(x > w, x, w), x.roll(2, 1), x.flip(1), x.rot90(), torch.tril(x), x.unfold(1, 2, 1),
            torch.cdist(x, w.expand(2, 5)), torch.nn.functional.one_hot(index, 4), torch.block_diag(w[:, None], w[None]), x.repeat_interleave(2, 1))


def spatial(w, x):
    batch = x.shape[0]
    grid = F.affine_grid(torch.tensor([[[0.8, 0.2, 0.1], [-0.1, 0.9, 0.0]]]).expand(batch, 2, 3), [batch, 2, 9, 7], align_corners=False)
    columns = F.unfold(x, 3, padding=1)
    return (F.grid_sample(x * w, grid, mode="bicubic", padding_mode="reflection", align_corners=False), F.fold(columns, (8, 8), 3, padding=1),
            F.interpolate(x, size=(11, 5), mode="bicubic", antialias=True), F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
            F.lp_pool2d(x.abs(), 3, 2), F.local_response_norm(x, 2), F.adaptive_max_pool2d(x, 3), F.pixel_unshuffle(x, 2),
            F.pad(x, (1, 2, 0, 1), mode="circular"), F.channel_shuffle(x, 2))


def bits(w, x):
    a = (x * 100).to(torch.int32)
    b = w.abs().mul(9).to(torch.int32)
    return (a ^ b, a & 7, a << 2, torch.bitwise_right_shift(a, 1), torch.gcd(a, b + 1), torch.fmod(a, 7), torch.remainder(a, 7), ~a,
            torch.div(a, 3, rounding_mode="floor"), a.to(torch.uint8), (x > 0).logical_xor(x < 1), torch.frexp(x).mantissa, torch.nextafter(x, w.expand_as(x)),
            x.to(torch.bfloat16), x.to(torch.float16).double(), torch.heaviside(x, w), torch.ldexp(x, a % 4), torch.isin(a, b))


def products(w, x):
    return (torch.einsum("bij,kj->bki", x, w), F.bilinear(x[:, 0], x[:, 1], w[:3, :, None].expand(3, 6, 6).contiguous()), torch.baddbmm(x, x @ x.mT, x, beta=0.5),
            torch.addcmul(x, w[0], w[1], value=0.3), torch.tensordot(x, w, dims=([2], [1])), torch.kron(w[:2], w[:2]), torch.cross(x[..., :3], x[..., 3:], dim=-1),
            torch.vander(w[0], 3), torch.cartesian_prod(w[0, :2], w[1, :2]), torch.linalg.multi_dot([w.T, w, w.T]),
            F.embedding_bag(torch.tensor([0, 1, 3, 2]), w, torch.tensor([0, 2]), mode="mean"), F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]),
            F.softmin(x, -1), F.glu(x, -1))


def inputs(*sizes):
    return lambda batch, length: (torch.randn(batch, *sizes),)


CASES = [
    Case("operators_special", lambda: Function(special, 5), inputs(5), BATCH),
    Case("operators_linalg", lambda: Function(linear_algebra, 4, 6), inputs(4, 6), BATCH),
    Case("operators_fft", lambda: Function(fourier, 8, 8), inputs(8, 8), BATCH),
    Case("operators_sorting", lambda: Function(sorting, 9), inputs(9), BATCH),
    Case("operators_indexing", lambda: Function(indexing, 5), inputs(5), BATCH),
    Case("operators_spatial", lambda: Function(spatial, 2, 8, 8), inputs(2, 8, 8), BATCH),
    Case("operators_bits", lambda: Function(bits, 6), inputs(6), BATCH),
    Case("operators_products", lambda: Function(products, 6, 6), inputs(6, 6), BATCH),
]
