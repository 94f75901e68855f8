"""Writes distillation.json: losses of distillation, their values and gradients, by Python's torch.

    python tests/golden/distillation.py        (torch 2.13)

Each loss is stated again here, plainly, after the paper and the code that its numbers were published with
(RepDistiller, mdistiller, attention-transfer). Numbers are doubles; inputs have four decimals.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.manual_seed(20)
CASES = {}


def pack(tensor):
    return {"sizes": list(tensor.shape), "data": tensor.detach().flatten().tolist()}


def rounded(*sizes, scale=1.0):
    return (torch.randn(*sizes) * scale * 1e4).round() / 1e4


def add(name, loss, student, teacher, **more):
    """Adds a case; `more` holds further tensors and numbers, which `loss` gets by name."""
    s = student.clone().requires_grad_()
    value = loss(s, teacher, **more)
    value.backward()
    case = {"student": pack(student), "teacher": pack(teacher), "value": value.item(), "gradient": pack(s.grad)}
    for key, what in more.items():
        case[key] = pack(what) if torch.is_tensor(what) else what
    CASES[name] = case


# Hinton et al. 2015.


def kd(s, t, temperature):
    p_t = F.softmax(t / temperature, dim=-1)
    log_p_s = F.log_softmax(s / temperature, dim=-1)
    sum_ = (p_t * (p_t.log() - log_p_s)).sum()
    return sum_ * temperature**2 / (s.numel() // s.shape[-1])


def kd_over_elements(s, t, temperature):
    """As Polino et al. ran it: the mean of KLDivLoss over all elements."""
    with_mean = torch.nn.KLDivLoss(reduction="mean")
    return with_mean(F.log_softmax(s / temperature, dim=-1), F.softmax(t / temperature, dim=-1)) * temperature**2


# Zhao et al. 2022.


def dkd(s, t, labels, alpha, beta, temperature):
    rows = torch.arange(len(labels))
    mask = torch.zeros_like(s, dtype=torch.bool)
    mask[rows, labels] = True

    def pair(z):
        p = F.softmax(z / temperature, dim=1)
        return torch.stack([p[mask], (p * ~mask).sum(1)], 1)

    b_s, b_t = pair(s), pair(t)
    tckd = F.kl_div(b_s.log(), b_t, reduction="sum") * temperature**2 / len(labels)
    p_t = F.softmax(t / temperature - 1000.0 * mask, dim=1)
    log_p_s = F.log_softmax(s / temperature - 1000.0 * mask, dim=1)
    nckd = F.kl_div(log_p_s, p_t, reduction="sum") * temperature**2 / len(labels)
    return alpha * tckd + beta * nckd


# Romero et al. 2015.


def fitnet(s, t):
    return ((s - t) ** 2).mean()


# Zagoruyko & Komodakis 2017.


def attention_map(f):
    return F.normalize(f.pow(2).mean(1).flatten(1))


def attention(s, t):
    s_size, t_size = s.shape[2], t.shape[2]
    if s_size > t_size:
        s = F.adaptive_avg_pool2d(s, (t_size, t_size))
    elif s_size < t_size:
        t = F.adaptive_avg_pool2d(t, (s_size, s_size))
    return (attention_map(s) - attention_map(t)).pow(2).mean()


def attention_norm(s, t):
    return torch.norm(attention_map(s) - attention_map(t), dim=1).sum() / len(s)


# Tung & Mori 2019.


def similarity(s, t):
    n = len(s)
    s, t = s.reshape(n, -1), t.reshape(n, -1)
    g_s, g_t = F.normalize(s @ s.T), F.normalize(t @ t.T)
    return (g_t - g_s).pow(2).sum() / n**2


# Park et al. 2019.


def distances(e):
    square = e.pow(2).sum(1)
    d = (square[:, None] + square[None, :] - 2 * e @ e.T).clamp(min=1e-12).sqrt().clone()
    d[range(len(e)), range(len(e))] = 0
    return d


def rkd_distance(s, t):
    d_s, d_t = distances(s.flatten(1)), distances(t.flatten(1))
    return F.smooth_l1_loss(d_s / d_s[d_s > 0].mean(), d_t / d_t[d_t > 0].mean())


def rkd_angle(s, t):
    def angles(e):
        e = e.flatten(1)
        directions = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), p=2, dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).view(-1)

    return F.smooth_l1_loss(angles(s), angles(t))


# Errors of features.


def relative_error(s, t):
    return ((s - t) ** 2).sum() / (t**2).sum()


def cosine(s, t):
    width = s.shape[-1] if s.dim() == 3 else s[0].numel()
    s, t = s.reshape(-1, width), t.reshape(-1, width)
    return F.cosine_embedding_loss(s, t, torch.ones(len(s)))


# Labels.


def cross_entropy(s, labels, smoothing):
    """Szegedy et al. 2016, section 7."""
    classes = s.shape[-1]
    log_p = s.reshape(-1, classes).log_softmax(1)
    target = F.one_hot(labels.flatten(), classes) * (1 - smoothing) + smoothing / classes
    return -(target * log_p).sum(1).mean()


# Tian et al. 2020: two steps with given candidates, banks and embeddings.


def contrastive(features, banks, embeddings, candidates, temperature, momentum):
    eps = 1e-7
    samples = banks[0].shape[0]
    banks = [bank.clone() for bank in banks]
    z = [None, None]
    steps = []
    for (f_s, f_t), chosen in zip(features, candidates):
        f_s = f_s.clone().requires_grad_()
        weights = [w.clone().requires_grad_() for w in embeddings]
        v = []
        for f, weight, bias in ((f_s, *weights[:2]), (f_t, *weights[2:])):
            e = f.flatten(1) @ weight.T + bias
            v.append(e / e.pow(2).sum(1, keepdim=True).sqrt())
        negatives = chosen.shape[1] - 1
        noise = 1 / samples
        total = 0
        for side in range(2):
            out = torch.exp(torch.einsum("nkd,nd->nk", banks[1 - side][chosen], v[side]) / temperature)
            if z[side] is None:
                z[side] = (out.mean() * samples).item()
            out = out / z[side]
            positive = torch.log(out[:, 0] / (out[:, 0] + negatives * noise + eps))
            negative = torch.log(negatives * noise / (out[:, 1:] + negatives * noise + eps))
            total = total - (positive.sum() + negative.sum()) / len(chosen)
        total.backward()
        index = chosen[:, 0]
        with torch.no_grad():
            for side in range(2):
                new = banks[side][index] * momentum + v[side] * (1 - momentum)
                banks[side][index] = new / new.pow(2).sum(1, keepdim=True).sqrt()
        steps.append({"student": pack(f_s), "teacher": pack(f_t), "candidates": pack(chosen), "value": total.item(),
                      "gradient": pack(f_s.grad), "weight_gradients": [pack(w.grad) for w in weights]})
    return {"steps": steps, "normalizers": z, "final_banks": [pack(bank) for bank in banks]}


def main():
    s, t = rounded(4, 5, scale=2), rounded(4, 5, scale=2)
    labels = torch.tensor([3, 0, 4, 1])
    add("kd", kd, s, t, temperature=4.0)
    add("kd_tokens", kd, rounded(2, 3, 5), rounded(2, 3, 5), temperature=1.0)
    add("kd_over_elements", kd_over_elements, s, t, temperature=2.0)
    add("dkd", dkd, s, t, labels=labels, alpha=1.0, beta=8.0, temperature=4.0)

    f_s, f_t = rounded(3, 2, 4, 4), rounded(3, 2, 4, 4)
    add("hint", fitnet, f_s, f_t)
    add("attention", attention, f_s, rounded(3, 5, 4, 4))
    add("attention_smaller_teacher", attention, f_s, rounded(3, 5, 2, 2))
    add("attention_larger_teacher", attention, f_s, rounded(3, 5, 6, 6))
    add("attention_norm", attention_norm, f_s, rounded(3, 5, 4, 4))
    add("similarity", similarity, f_s, rounded(3, 7))
    add("rkd_distance", rkd_distance, rounded(5, 3), rounded(5, 2, 2, 2))
    add("rkd_distance_far", rkd_distance, rounded(5, 3) ** 3, rounded(5, 2, 2, 2))  # beyond Huber's delta
    add("rkd_angle", rkd_angle, rounded(5, 3), rounded(5, 2, 2, 2))
    add("feature_error", relative_error, f_s, f_t)
    add("cosine", cosine, f_s, f_t)
    add("cosine_tokens", cosine, rounded(2, 3, 4), rounded(2, 3, 4))
    add("cross_entropy", cross_entropy, s, labels, smoothing=0.0)
    add("cross_entropy_smooth", cross_entropy, s, labels, smoothing=0.1)
    add("cross_entropy_tokens", cross_entropy, rounded(2, 3, 5), torch.tensor([[0, 4, 1], [2, 2, 3]]), smoothing=0.1)

    samples, dim, s_size, t_size = 7, 4, 3, 5
    banks = [F.normalize(rounded(samples, dim)), F.normalize(rounded(samples, dim))]
    embeddings = [rounded(dim, s_size), rounded(dim), rounded(dim, t_size), rounded(dim)]
    candidates = [torch.tensor([[0, 2, 3, 6], [1, 4, 4, 0]]), torch.tensor([[5, 0, 1, 3], [0, 6, 2, 5]])]
    features = [(rounded(2, s_size), rounded(2, t_size)) for _ in candidates]
    constants = {"temperature": 0.07, "momentum": 0.5}
    result = contrastive(features, banks, embeddings, candidates, **constants)
    CASES["contrastive"] = {**result, **constants, "banks": [pack(bank) for bank in banks],
                            "embeddings": [pack(w) for w in embeddings]}

    # A check of this script: the banks' rows stay of norm 1, and the first step sets Z.
    for bank in result["final_banks"]:
        norms = torch.tensor(bank["data"]).view(samples, dim).norm(dim=1)
        assert torch.allclose(norms, torch.ones(samples)) and all(map(math.isfinite, result["normalizers"]))
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in CASES.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
