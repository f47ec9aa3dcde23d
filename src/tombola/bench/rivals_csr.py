"""PyTorch's own sparse tensors: layers whose weights are trained as ``torch.sparse_csr``."""

import warnings
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola.bench.loop import Masks, TorchLoop, linear_layers, started
from tombola.bench.workload import Workload

DENSE_FROM: Final = 0.5
"""The density from which a layer stays dense under its mask; there CSR takes longer in every case measured."""


@final
class CsrLinear(nn.Module):
    """A linear layer on columns: ``torch.sparse.mm(W, x)`` with the examples in columns.

    Autograd gives the gradient of a CSR weight as a CSR tensor of the same pattern. Adam does not take sparse tensors,
    so it updates ``values``, which has the weight's memory.
    """

    def __init__(self, weight: Tensor, mask: Tensor, bias: Tensor) -> None:
        super().__init__()
        row, column = mask.nonzero(as_tuple=True)
        starts = torch.zeros(len(mask) + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(row, minlength=len(mask)).cumsum(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # 32-bit indices are what MKL takes; others are converted in every call.
            csr = torch.sparse_csr_tensor(
                starts.int(), column.int(), weight[mask].detach().clone(), size=tuple(weight.shape)
            )
        self.weight = nn.Parameter(csr)
        self.values = nn.Parameter(self.weight.detach().values())
        self.bias = nn.Parameter(bias.detach().clone()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[inputs, batch]`` to ``[outputs, batch]``."""
        return torch.sparse.mm(self.weight, x) + self.bias

    def hand_over(self) -> None:
        """Give the gradient to the values."""
        grad = self.weight.grad
        if grad is not None:
            self.values.grad, self.weight.grad = grad.values(), None


@final
class DenseLinear(nn.Module):
    """The same for a layer that stays dense."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[inputs, batch]`` to ``[outputs, batch]``."""
        return torch.addmm(self.bias, self.weight, x)


@final
class Columns(nn.Module):
    """A chain that keeps features in rows and examples in columns from its first layer to its logits."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, ...]`` to logits ``[batch, classes]``."""
        return self.layers(x.flatten(1).t()).t()


def loop(work: Workload, masks: Masks) -> TorchLoop:
    """Make the loop: CSR where a layer is sparse enough, the plain loop's dense layer elsewhere."""
    parts: list[nn.Module] = []
    sparse: list[CsrLinear] = []
    held: list[tuple[nn.Parameter, Tensor]] = []
    for name, layer in linear_layers(started(work, masks)):
        mask = masks.get(f"{name}.weight")
        if mask is not None and float(mask.float().mean()) < DENSE_FROM:
            sparse.append(CsrLinear(layer.weight, mask, layer.bias))
            parts += [sparse[-1], nn.ReLU()]
        else:
            dense = DenseLinear(layer.weight, layer.bias)
            if mask is not None:
                held.append((dense.weight, mask.float()))
            parts += [dense, nn.ReLU()]
    network = Columns(parts[:-1])

    def finish() -> None:
        for layer in sparse:
            layer.hand_over()

    params = [p for p in network.parameters() if p.layout == torch.strided]
    return TorchLoop(work, network, params=params, held=held, finish=finish)
