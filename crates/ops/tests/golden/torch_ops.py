"""Writes ops.safetensors: inputs and outputs of torch (2.15, CPU, double precision rounded to F32) for ops by name.

    python torch_ops.py
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(1)
tensors, cases = {}, []


def r(*shape):
    return torch.randn(*shape)


def case(op, attributes, inputs, f, *, wide=True):
    """One call: `f` of the inputs (in double precision, where they are floats) is what the op must give."""
    number = len(cases)
    given = [x.double() if wide and x.is_floating_point() else x for x in inputs]
    outputs = f(*given)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    for kind, all in (("in", inputs), ("out", outputs)):
        for i, x in enumerate(all):
            tensors[f"{number}.{kind}.{i}"] = (x.float() if x.is_floating_point() else x).contiguous().clone()
    cases.append({"op": op, "attributes": attributes, "inputs": len(inputs), "outputs": len(outputs)})


x = r(3, 4, 5)
for dim, keep in ((1, False), (-1, True)):
    how = {"dim": [dim], "keepdim": keep}
    case("sum", how, [x], lambda t: t.sum(dim, keepdim=keep))
    case("mean", how, [x], lambda t: t.mean(dim, keepdim=keep))
    case("prod", how, [x], lambda t: t.prod(dim, keepdim=keep))
    case("var", how, [x], lambda t: t.var(dim, keepdim=keep))
    case("std", how | {"correction": 0}, [x], lambda t: t.std(dim, keepdim=keep, correction=0))
    case("max", how, [x], lambda t: t.amax(dim, keepdim=keep))
    case("min", how, [x], lambda t: t.amin(dim, keepdim=keep))
    case("any", how, [(x > 1).float()], lambda t: (t != 0).any(dim, keepdim=keep))
    case("all", how, [(x > -1).float()], lambda t: (t != 0).all(dim, keepdim=keep))
    case("argmin", how, [x], lambda t: t.argmin(dim, keepdim=keep))
    case("logsumexp", how, [x * 50], lambda t: t.logsumexp(dim, keepdim=keep))
    for p in (1.0, 2.0, 3.0):
        case("norm", how | {"p": p}, [x], lambda t: torch.linalg.vector_norm(t, p, dim, keepdim=keep))
case("sum", {"dim": [0, 2]}, [x], lambda t: t.sum((0, 2)))
case("sum", {}, [torch.arange(12).reshape(3, 4)], lambda t: t.sum())
case("cumsum", {"dim": 1}, [x], lambda t: t.cumsum(1))
case("cumprod", {"dim": -1}, [x], lambda t: t.cumprod(-1))

case("matmul", {}, [r(2, 1, 3, 4), r(5, 4, 2)], torch.matmul)
case("bmm", {}, [r(2, 3, 4), r(2, 4, 5)], torch.bmm)
case("addmm", {"alpha": 0.5, "beta": 2.0}, [r(5), r(3, 4), r(4, 5)], lambda c, a, b: torch.addmm(c, a, b, alpha=0.5, beta=2.0))

i = torch.tensor([[0, 2, 1, 0, 1], [2, 2, 0, 1, 1]])
m = r(3, 5)
case("gather", {"dim": 0}, [m, i], lambda t, i: t.gather(0, i))
case("scatter_add", {"dim": 0}, [m, i, r(2, 5)], lambda t, i, y: t.scatter_add(0, i, y))
unique = torch.tensor([[0, 2, 1, 0, 1], [2, 1, 0, 1, 0]])
case("scatter", {"dim": 0}, [m, unique, r(2, 5)], lambda t, i, y: t.scatter(0, i, y))
row = torch.tensor([2, 0, 2, 1])
case("index_select", {"dim": 0}, [m, row], lambda t, i: t.index_select(0, i))
case("index_select", {"dim": -1}, [torch.arange(15).reshape(3, 5), row], lambda t, i: t.index_select(-1, i))
case("index_add", {"dim": 0, "alpha": -0.5}, [m, row, r(4, 5)], lambda t, i, y: t.index_add(0, i, y, alpha=-0.5))
case("masked_fill", {"value": -7.0}, [m, torch.tensor([True, False, True, False, False])], lambda t, k: t.masked_fill(k, -7.0))

case("sort", {"dim": 0}, [x], lambda t: t.sort(dim=0, stable=True))
case("sort", {"descending": True}, [torch.tensor([3, 1, 3, 2, 1])], lambda t: t.sort(descending=True, stable=True))
case("argsort", {"dim": 1}, [x], lambda t: t.argsort(dim=1, stable=True))
case("topk", {"k": 3}, [x], lambda t: t.topk(3))
case("topk", {"k": 2, "dim": 0, "largest": False}, [x], lambda t: t.topk(2, 0, largest=False))

case("cat", {"dim": 1}, [r(2, 3), r(2, 1)], lambda a, b: torch.cat((a, b), 1))
case("stack", {"dim": -1}, [r(2, 3), r(2, 3)], lambda a, b: torch.stack((a, b), -1))
case("split", {"dim": 2, "sizes": [1, 4]}, [x], lambda t: t.split([1, 4], 2))
case("pad", {"pads": [1, 2, 0, 3], "value": 1.5}, [x], lambda t: F.pad(t, (1, 2, 0, 3), value=1.5))
case("flip", {"dims": [0, -1]}, [x], lambda t: t.flip(0, -1))
case("roll", {"shifts": [1, -7], "dims": [0, 2]}, [x], lambda t: t.roll((1, -7), (0, 2)))
case("repeat", {"times": [2, 1, 3]}, [m], lambda t: t.repeat(2, 1, 3))
for d in (-1, 0, 2):
    case("tril", {"diagonal": d}, [x], lambda t: t.tril(d))
    case("triu", {"diagonal": d}, [x], lambda t: t.triu(d))

case("full", {"shape": [2, 3], "value": 2.5}, [], lambda: torch.full((2, 3), 2.5))
case("arange", {"start": -1.0, "end": 4.1, "step": 0.5}, [], lambda: torch.arange(-1.0, 4.1, 0.5))
case("arange", {"end": 7, "dtype": "I64"}, [], lambda: torch.arange(7))
case("linspace", {"start": -1.0, "end": 2.0, "count": 7}, [], lambda: torch.linspace(-1, 2, 7))
case("eye", {"rows": 3, "columns": 5}, [], lambda: torch.eye(3, 5))
case("one_hot", {"classes": 4}, [i], lambda i: F.one_hot(i, 4))

a, b, p, q = r(4, 6), r(4, 6), torch.rand(4, 6), torch.rand(4, 6)
for reduction in ("none", "mean", "sum"):
    how = {"reduction": reduction}
    case("mse_loss", how, [a, b], lambda x, y: F.mse_loss(x, y, reduction=reduction))
    case("l1_loss", how, [a, b], lambda x, y: F.l1_loss(x, y, reduction=reduction))
    case("smooth_l1_loss", how | {"beta": 0.5}, [a, b], lambda x, y: F.smooth_l1_loss(x, y, reduction=reduction, beta=0.5))
    case("huber_loss", how | {"delta": 0.7}, [a, b], lambda x, y: F.huber_loss(x, y, reduction=reduction, delta=0.7))
    case("bce_loss", how, [p, q], lambda x, y: F.binary_cross_entropy(x, y, reduction=reduction))
    case("bce_with_logits_loss", how, [a, q], lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=reduction))
    case("kl_div", how, [p.log(), q], lambda x, y: F.kl_div(x, y, reduction=reduction))
    case("kl_div", how | {"log_target": True}, [p.log(), q.log()], lambda x, y: F.kl_div(x, y, reduction=reduction, log_target=True))
    t = torch.tensor([5, 0, -100, 2])
    case("cross_entropy", how, [a, t], lambda x, t: F.cross_entropy(x, t, reduction=reduction))
    case("cross_entropy", how | {"label_smoothing": 0.1, "ignore_index": 2}, [a, t.abs() % 6],
         lambda x, t: F.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1, ignore_index=2))
    case("nll_loss", how, [a.log_softmax(1), t], lambda x, t: F.nll_loss(x, t, reduction=reduction))


save_file(tensors, "ops.safetensors", {"cases": json.dumps(cases)})
print(len(cases), "cases")
