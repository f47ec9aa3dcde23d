"""Random: the control that any criterion has to beat."""

import torch

from tombola.prune.evidence import Evidence, only_alive
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def random(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight uniformly at random, :math:`s \sim U(0, 1)`.

    The baseline of Frankle & Carbin (2019), Figure 1 (randomly sampled sparse networks).

    Args:
        params: name -> float tensor; only shapes and devices are used.
        masks: name -> bool tensor, same shape.
        evidence: ``generator`` is required, a CPU generator, so the scores are the same on every device.

    Returns:
        name -> float64 tensor on the parameter's device, for the names in ``masks``.

    Raises:
        MissingEvidence: there is no generator.
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> w = {"w": torch.zeros(2, 3)}
        >>> m = {"w": torch.ones(2, 3, dtype=torch.bool)}
        >>> g = lambda: Evidence(generator=torch.Generator().manual_seed(0))
        >>> torch.equal(random(w, m, g())["w"], random(w, m, g())["w"])
        True
    """
    check(params, masks)
    generator = evidence.require("generator")
    # float64: among 10^7 float32 draws many would tie.
    draws = {
        name: torch.rand(mask.shape, dtype=torch.float64, generator=generator).to(mask.device)
        for name, mask in masks.items()
    }
    return only_alive(draws, masks)
