"""Learning rates of transformers' and torch's schedules, step by step.

    python schedules.py     (torch, transformers; writes schedules.json)
"""

import json
import pathlib

import torch
from torch.optim import lr_scheduler as T
from transformers import optimization as H

RATE, STEPS, WARMUP = 2e-3, 40, 6
found = {}


def rates(name, make, losses=None, steps=STEPS):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([losses[step]] if losses else []))
    found[name] = rates


rates("constant", lambda o: H.get_constant_schedule_with_warmup(o, WARMUP))
rates("linear", lambda o: H.get_linear_schedule_with_warmup(o, WARMUP, STEPS))
rates("cosine", lambda o: H.get_cosine_schedule_with_warmup(o, WARMUP, STEPS))
rates("cosine-floor", lambda o: H.get_cosine_with_min_lr_schedule_with_warmup(o, WARMUP, STEPS, min_lr_rate=0.1))
rates("cosine_with_restarts", lambda o: H.get_cosine_with_hard_restarts_schedule_with_warmup(o, WARMUP, STEPS, 3))
rates("polynomial", lambda o: H.get_polynomial_decay_schedule_with_warmup(o, WARMUP, STEPS, lr_end=1e-5, power=2.0))
rates("inverse_sqrt", lambda o: H.get_inverse_sqrt_schedule(o, WARMUP, timescale=10))
rates("wsd", lambda o: H.get_wsd_schedule(o, WARMUP, 10, num_training_steps=STEPS, min_lr_ratio=0.1))
rates("wsd-linear", lambda o: H.get_wsd_schedule(o, WARMUP, 10, num_training_steps=STEPS, decay_type="linear"))
rates("exponential", lambda o: T.ExponentialLR(o, 0.9))
rates("step", lambda o: T.StepLR(o, 7, 0.5))
rates("one_cycle", lambda o: T.OneCycleLR(o, RATE, total_steps=STEPS), steps=STEPS - 1)
losses = [3.0, 2.0, 2.1, 2.0, 1.99995, 1.9, 1.95, 1.95, 1.95, 1.95, 1.95, 1.95, 1.0, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1] * 2
how = dict(factor=0.5, patience=2, cooldown=1, min_lr=3e-4)
rates("reduce_on_plateau", lambda o: T.ReduceLROnPlateau(o, **how), losses)
found["losses"] = losses
path = pathlib.Path(__file__).with_name("schedules.json")
path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")
