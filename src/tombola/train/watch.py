"""Who watches a run."""

from typing import Protocol, final

from tombola.types import Step


class Watcher(Protocol):
    """Who watches a run: told of every evaluation, asked again and again while it trains whether to stop."""

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None: ...

    def stop(self) -> bool: ...


@final
class Unwatched:
    """Nobody watches."""

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        """Do nothing."""

    def stop(self) -> bool:
        """Go on."""
        return False
