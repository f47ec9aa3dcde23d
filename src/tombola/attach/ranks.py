"""One mask on every rank."""

from torch import distributed

from tombola.errors import RanksDiffer
from tombola.prune.masks import fingerprint, kept
from tombola.types import Masks


def check_equal(masks: Masks) -> None:
    """Compare this rank's masks with all others'; a collective call, and nothing where there is one process.

    Raises:
        RanksDiffer: on every rank, if any two differ.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    mine = (fingerprint(masks), kept(masks))
    every: list[tuple[str, int] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, mine)
    if len({one[0] for one in every if one is not None}) > 1:
        held = ", ".join(f"rank {rank}: {one[1]} kept, {one[0][:12]}" for rank, one in enumerate(every) if one)
        raise RanksDiffer(
            f"the ranks hold different masks ({held}). All ranks must train one subnetwork. Make the masks on one rank "
            "and broadcast them, or from the same generator seed on all."
        )
