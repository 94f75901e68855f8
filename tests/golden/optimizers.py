"""Writes optimizers.json: what torch.optim and its schedulers do, step by step.

Run once with torch 2.13:
    python tests/golden/optimizers.py

`gradients` are given, so nothing depends on a model. `schedules` are the rates (of a rate of 1) before
each step; `runs` are the parameters after each step, the rates of the steps, the norms that
clip_grad_norm_ returned, and `final`, the last parameters of the same run in float64. Options are
written as in a recipe.

Lathe's schedules count optimizer steps, so torch's schedulers are stepped after every optimizer step:
    step        StepLR(every * steps_per_epoch)
    multi_step  MultiStepLR(at * steps_per_epoch)
    cosine      CosineAnnealingLR(T_max=total_steps, eta_min=final * lr)
    one_cycle   OneCycleLR(total_steps, pct_start=rise, div_factor, final_div_factor, cycle_momentum=False)
    linear      LinearLR(1, final, total_iters=total_steps)
The warm-up of W steps is a factor of its own, LinearLR(1 / W, 1, total_iters=W - 1).
"""

import json
import math
import pathlib

import torch
from torch.optim import lr_scheduler

STEPS = 24
STEPS_PER_EPOCH = 4
# The last dimension is odd, so that vectorised kernels also meet a rest.
INITIAL = {"fc.weight": [[0.5, -1.25, 0.75], [1.5, 0.25, -0.5]], "fc.bias": [0.125, -0.875]}


def gradients(step):
    """Numbers that depend on nothing but the step; a few times they are large, so that clipping does something."""
    scale = 4.0 if step % 5 == 2 else 0.3
    wave = [round(scale * math.sin(1.7 * i + 0.9 * step), 3) for i in range(8)]
    return {"fc.weight": [wave[0:3], wave[3:6]], "fc.bias": wave[6:8]}


def optimizer_of(options, parameters):
    ((name, settings),) = options.items()
    settings = dict(settings)
    if "beta1" in settings:
        settings["betas"] = (settings.pop("beta1"), settings.pop("beta2"))
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, foreach=False, **settings)


def rates_of(options, lr):
    """The rates of all steps, as torch's scheduler gives them."""
    ((name, settings),) = options.items()
    settings = dict(settings)
    warmup = settings.pop("warmup_epochs", 0) * STEPS_PER_EPOCH

    def run(scheduler_of, lr):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        scheduler = scheduler_of(optimizer)
        rates = []
        for step in range(STEPS):
            if step > 0:
                optimizer.step()
                scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    rates = run(
        {
            "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0, total_iters=0),
            "step": lambda o: lr_scheduler.StepLR(o, settings["every"] * STEPS_PER_EPOCH, settings["gamma"]),
            "multi_step": lambda o: lr_scheduler.MultiStepLR(
                o, [int(epoch * STEPS_PER_EPOCH) for epoch in settings["at"]], settings["gamma"]
            ),
            "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=settings["final"] * lr),
            "one_cycle": lambda o: lr_scheduler.OneCycleLR(
                o,
                max_lr=lr,
                total_steps=STEPS,
                pct_start=settings["rise"],
                div_factor=settings["start_divisor"],
                final_div_factor=settings["final_divisor"],
                cycle_momentum=False,
            ),
            "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, settings["final"], total_iters=STEPS),
        }[name],
        lr,
    )
    if warmup:
        assert warmup == int(warmup)
        factors = run(lambda o: lr_scheduler.LinearLR(o, 1 / warmup, 1.0, total_iters=int(warmup) - 1), 1.0)
        rates = [rate * factor for rate, factor in zip(rates, factors)]
    return rates


SCHEDULES = [
    {"constant": {}},
    {"step": {"every": 2, "gamma": 0.5}},
    {"multi_step": {"at": [1.5, 2, 4.25], "gamma": 0.1}},
    {"cosine": {"final": 0}},
    {"cosine": {"final": 0.1}},
    {"one_cycle": {"rise": 0.3, "start_divisor": 25, "final_divisor": 10000}},
    {"one_cycle": {"rise": 0.6, "start_divisor": 4, "final_divisor": 20}},
    {"one_cycle": {"rise": 0.0, "start_divisor": 4, "final_divisor": 20}},
    {"one_cycle": {"rise": 1.0, "start_divisor": 4, "final_divisor": 20}},
    {"linear": {"final": 0}},
    {"linear": {"final": 0.25}},
]
SCHEDULES += [{name: {**s, "warmup_epochs": 1.5}} for schedule in SCHEDULES for name, s in schedule.items()]

SGD = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
OPTIMIZERS = [
    {"sgd": {"lr": 0.1, **SGD}},
    {"sgd": {"lr": 0.1, **SGD, "momentum": 0.9}},
    {"sgd": {"lr": 0.1, **SGD, "momentum": 0.9, "nesterov": True}},
    {"sgd": {"lr": 0.1, **SGD, "momentum": 0.8, "dampening": 0.4}},
    {"sgd": {"lr": 0.1, **SGD, "weight_decay": 0.05}},
    {"sgd": {"lr": 0.05, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01, "nesterov": True}},
    {"adam": {"lr": 0.02, **ADAM, "weight_decay": 0.0}},
    {"adam": {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.1}},
    {"adamw": {"lr": 0.02, **ADAM, "weight_decay": 0.01}},
    {"adamw": {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.3}},
]


def run(options, schedule, clip, dtype=torch.float32):
    parameters = {name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in INITIAL.items()}
    optimizer = optimizer_of(options, list(parameters.values()))
    (settings,) = options.values()
    result = {"optimizer": options, "schedule": schedule, "clip": clip, "rates": [], "norms": [], "parameters": []}
    for step, rate in enumerate(rates_of(schedule, settings["lr"])):
        for name, values in gradients(step).items():
            parameters[name].grad = torch.tensor(values, dtype=dtype)
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip, foreach=False)
            result["norms"].append(norm.item())
        optimizer.param_groups[0]["lr"] = rate
        result["rates"].append(rate)
        optimizer.step()
        result["parameters"].append({name: p.flatten().tolist() for name, p in parameters.items()})
    if dtype == torch.float32:
        result["final"] = run(options, schedule, clip, torch.float64)["parameters"][-1]
    return result


def main():
    runs = [run(options, SCHEDULES[0], None) for options in OPTIMIZERS]
    for i, schedule in enumerate(SCHEDULES):
        runs.append(run(OPTIMIZERS[(5, 8)[i % 2]], schedule, None))
    runs += [run(OPTIMIZERS[i], SCHEDULES[0], 0.75) for i in (0, 5, 7)]
    golden = {
        "torch": torch.__version__,
        "steps": STEPS,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "initial": INITIAL,
        "gradients": [gradients(step) for step in range(STEPS)],
        "schedules": [{"schedule": schedule, "rates": rates_of(schedule, 1.0)} for schedule in SCHEDULES],
        "runs": runs,
    }
    lines = ",\n".join(
        f"{json.dumps(key)}:[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "]"
        if isinstance(value, list)
        else f"{json.dumps(key)}:{json.dumps(value)}"
        for key, value in golden.items()
    )
    pathlib.Path(__file__).with_suffix(".json").write_text(f"{{{lines}}}\n")


if __name__ == "__main__":
    main()
