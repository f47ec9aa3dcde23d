"""A training iteration recorded once as a CUDA graph and replayed, which spares its launches."""

from collections.abc import Callable
from typing import Final, final

import torch
from torch import Tensor

_WARM_UP: Final = 3


@final
class Captured:
    """An iteration ``[R, B] indices -> None`` that is replayed from its fourth call on.

    The first calls run as they are, on a side stream: they make the optimiser's state and the libraries' workspaces,
    which a recording must find in place. Everything else that changes between calls (the learning rate) lives in
    tensors written in place.
    """

    def __init__(self, iterate: Callable[[Tensor], None], device: torch.device) -> None:
        """Set the iteration.

        Args:
            iterate: one training step; it replaces gradients and changes all else in place, and never waits for the
                device.
            device: a CUDA device.
        """
        self._iterate, self._device = iterate, device
        self._side = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._index: Tensor | None = None
        self._calls = 0

    def __call__(self, index_RB: Tensor) -> None:
        """Do one iteration."""
        with torch.cuda.device(self._device):
            if self._index is None:
                self._index = index_RB.clone()
            self._index.copy_(index_RB)
            self._calls += 1
            if self._calls <= _WARM_UP:
                self._side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._side):
                    self._iterate(self._index)
                torch.cuda.current_stream().wait_stream(self._side)
                return
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._iterate(self._index)
            self._graph.replay()
