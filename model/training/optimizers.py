"""The optimizers: Muon for the matrices inside a network, AdamW for everything else.

Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Loshchilov and
Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Of p(s) = a s + b s^3 + c s^5, which five times over takes singular values to about 1 (Jordan et al.).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(Optimizer):
    """Momentum whose update of each matrix is made orthogonal; convolutions count as (outputs, the rest).

    torch.optim.Muon takes matrices alone, and multiplies them by their transposes in each iteration; a
    network this narrow would spend a third of a step there.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient; `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(average, group["momentum"]).flatten(1)  # Nesterov
                alike[update.shape[0], update.shape[1]].append((parameter, update))
            for (rows, columns), moves in alike.items():
                updates = orthogonalized(torch.stack([update for _, update in moves]).float())
                step = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), update in zip(moves, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape).to(parameter.dtype), alpha=-step)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return matrices (count, rows, columns) with the same singular vectors, and values from 0.7 to 1.2.

    Newton and Schulz's iteration on the smaller Gram matrix: X becomes P X with P = a + b G + c G^2, and so
    G = X X^T becomes P G P; the long side enters in the first product and the last alone.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.transpose(1, 2)).transpose(1, 2)
    a, b, c = COEFFICIENTS
    matrices = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = matrices @ matrices.transpose(1, 2)
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    whole = identity
    for iteration in range(ITERATIONS):
        factor = a * identity + b * gram + c * gram @ gram
        whole = factor @ whole if iteration else factor
        if iteration + 1 < ITERATIONS:
            gram = factor @ gram @ factor
    return whole @ matrices
