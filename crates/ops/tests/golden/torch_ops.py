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

# Convolutions, pools, norms over channels, bags, picking.
torch.manual_seed(2)
seq, image = r(2, 4, 17), r(2, 4, 9, 8)
for how in ({}, {"stride": 2, "padding": 3, "dilation": 2}, {"groups": 2, "padding": 1}):
    g = how.get("groups", 1)
    case("conv1d", how, [seq, r(6, 4 // g, 3), r(6)], lambda x, w, b: F.conv1d(x, w, b, **how))
    case("conv2d", how, [image, r(6, 4 // g, 3, 2)], lambda x, w: F.conv2d(x, w, **how))
case("conv2d", {"stride": [2, 1], "padding": [0, 1], "dilation": [1, 2], "groups": 4}, [image, r(4, 1, 3, 3), r(4)],
     lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=4))
for how in ({}, {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}):
    g = how.get("groups", 1)
    case("conv_transpose1d", how, [seq, r(4, 3, 4), r(3 * g)], lambda x, w, b: F.conv_transpose1d(x, w, b, **how))
    case("conv_transpose2d", how, [image, r(4, 3, 3, 2), r(3 * g)], lambda x, w, b: F.conv_transpose2d(x, w, b, **how))

for how in ({"kernel": 3}, {"kernel": 4, "stride": 2, "padding": 2}, {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}):
    torch_how = {("kernel_size" if k == "kernel" else k): v for k, v in how.items()}
    case("max_pool1d", how, [seq], lambda x: F.max_pool1d(x, return_indices=True, **torch_how))
    case("max_pool2d", how, [image], lambda x: F.max_pool2d(x, return_indices=True, **torch_how))
    case("avg_pool1d", how, [seq], lambda x: F.avg_pool1d(x, **torch_how))
    case("avg_pool2d", how, [image], lambda x: F.avg_pool2d(x, **torch_how))
    case("avg_pool2d", how | {"count_include_pad": False}, [image], lambda x: F.avg_pool2d(x, count_include_pad=False, **torch_how))
case("max_pool2d", {"kernel": [2, 3], "stride": 1, "dilation": [2, 1]}, [image],
     lambda x: F.max_pool2d(x, (2, 3), 1, 0, (2, 1), return_indices=True))
case("adaptive_avg_pool1d", {"size": 5}, [seq], lambda x: F.adaptive_avg_pool1d(x, 5))
case("adaptive_avg_pool2d", {"size": [4, 3]}, [image], lambda x: F.adaptive_avg_pool2d(x, (4, 3)))
for size, scaled in (([23], seq), ([6], seq), ([20, 5], image)):
    case("interpolate", {"size": size}, [scaled], lambda x: F.interpolate(x, size))
    mode = "linear" if len(size) == 1 else "bilinear"
    for corners in (False, True):
        case("interpolate", {"size": size, "mode": "linear", "align_corners": corners}, [scaled],
             lambda x: F.interpolate(x, size, mode=mode, align_corners=corners))

w, c = r(4), r(4)
case("group_norm", {"groups": 2}, [image, w, c], lambda x, w, b: F.group_norm(x, 2, w, b))
case("group_norm", {"groups": 4, "eps": 0.1}, [seq], lambda x: F.group_norm(x, 4, eps=0.1))
case("instance_norm", {}, [image, w, c], lambda x, w, b: F.instance_norm(x, weight=w, bias=b))
mean, variance = r(4), torch.rand(4) + 0.5
case("batch_norm", {"eps": 0.01}, [image, mean, variance, w, c], lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, eps=0.01))
case("batch_norm", {}, [seq, mean, variance], lambda x, m, v: F.batch_norm(x, m, v))
case("batch_norm_training", {}, [image, w, c], lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True))
case("batch_norm_training", {}, [r(7, 4)], lambda x: F.batch_norm(x, None, None, training=True))

table, ids, offsets = r(9, 5), torch.tensor([3, 8, 0, 3, 5, 1]), torch.tensor([0, 2, 2, 5, 6])
for mode in ("sum", "mean", "max"):
    case("embedding_bag", {"mode": mode}, [table, ids, offsets], lambda t, i, o: F.embedding_bag(i, t, o, mode=mode))
case("embedding_bag", {}, [table, ids, offsets, r(6)], lambda t, i, o, s: F.embedding_bag(i, t, o, mode="sum", per_sample_weights=s))

whole, other = torch.tensor([[1, -7, 255], [2**40 + 1, 0, 6]]), torch.tensor([3, 2**40, -1])
case("bitwise_and", {}, [whole, other], torch.bitwise_and)
case("bitwise_or", {}, [whole, other], torch.bitwise_or)
case("bitwise_xor", {}, [whole, other], torch.bitwise_xor)
case("bitwise_not", {}, [whole], torch.bitwise_not)
case("bitwise_not", {}, [whole > 1], torch.bitwise_not)
case("bitwise_and", {}, [whole > 1, other > 0], torch.bitwise_and)
case("isin", {}, [whole, other], torch.isin)
case("index", {}, [x, torch.tensor([[0, -1], [2, 1]])], lambda t, i: t[i])
case("index", {}, [x, torch.tensor([[0], [2]]), torch.tensor([3, -4, 1])], lambda t, i, j: t[i, j])


save_file(tensors, "ops.safetensors", {"cases": json.dumps(cases)})
print(len(cases), "cases")
