"""One criterion per file, each with its paper and equation; the contract is :class:`~tombola.prune.evidence.Criterion`.

``tests/contract/test_criteria.py`` runs every entry of ``CRITERIA`` through the same checks. What each is and needs
stands in :mod:`tombola.prune.catalogue`.
"""

from typing import Final

from tombola.prune import catalogue
from tombola.prune.criteria.grasp import grasp, grasp_magnitude
from tombola.prune.criteria.known import Compensate, Known
from tombola.prune.criteria.large_final_diff_sign import large_final_diff_sign
from tombola.prune.criteria.large_final_same_sign import large_final_same_sign
from tombola.prune.criteria.large_init import large_init
from tombola.prune.criteria.large_init_large_final import large_init_large_final
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.criteria.magnitude_increase import magnitude_increase
from tombola.prune.criteria.magnitude_increase_diff_sign import magnitude_increase_diff_sign
from tombola.prune.criteria.magnitude_increase_same_sign import magnitude_increase_same_sign
from tombola.prune.criteria.movement import movement
from tombola.prune.criteria.movement_pruning import movement_pruning
from tombola.prune.criteria.obd import obd, obd_first
from tombola.prune.criteria.obd_hutchinson import obd_hutchinson, obd_hutchinson_first
from tombola.prune.criteria.obd_lecun import obd_lecun, obd_lecun_first
from tombola.prune.criteria.obs import obs, obs_compensate
from tombola.prune.criteria.random import random
from tombola.prune.criteria.small_final import small_final
from tombola.prune.criteria.small_init import small_init
from tombola.prune.criteria.small_init_small_final import small_init_small_final
from tombola.prune.criteria.snip import snip
from tombola.prune.criteria.synflow import synflow
from tombola.prune.criteria.taylor import taylor
from tombola.prune.evidence import Criterion

_SCORES: Final[dict[str, Criterion]] = {
    "magnitude": magnitude,
    "small-final": small_final,
    "large-init": large_init,
    "small-init": small_init,
    "large-init-large-final": large_init_large_final,
    "small-init-small-final": small_init_small_final,
    "movement": movement,
    "magnitude-increase": magnitude_increase,
    "large-final-same-sign": large_final_same_sign,
    "large-final-diff-sign": large_final_diff_sign,
    "magnitude-increase-same-sign": magnitude_increase_same_sign,
    "magnitude-increase-diff-sign": magnitude_increase_diff_sign,
    "random": random,
    "snip": snip,
    "grasp": grasp,
    "grasp-magnitude": grasp_magnitude,
    "synflow": synflow,
    "taylor": taylor,
    "movement-pruning": movement_pruning,
    "obd": obd,
    "obd-first": obd_first,
    "obd-lecun": obd_lecun,
    "obd-lecun-first": obd_lecun_first,
    "obd-hutchinson": obd_hutchinson,
    "obd-hutchinson-first": obd_hutchinson_first,
    "obs": obs,
}

_COMPENSATE: Final[dict[str, Compensate]] = {"obs": obs_compensate}

CRITERIA: Final[dict[str, Known]] = {
    name: Known(_SCORES[name], about, _COMPENSATE.get(name)) for name, about in catalogue.CRITERIA.items()
}
"""Name -> the criterion, in the catalogue's order."""

__all__ = [
    "CRITERIA",
    "Known",
    "grasp",
    "grasp_magnitude",
    "large_final_diff_sign",
    "large_final_same_sign",
    "large_init",
    "large_init_large_final",
    "magnitude",
    "magnitude_increase",
    "magnitude_increase_diff_sign",
    "magnitude_increase_same_sign",
    "movement",
    "movement_pruning",
    "obd",
    "obd_first",
    "obd_hutchinson",
    "obd_hutchinson_first",
    "obd_lecun",
    "obd_lecun_first",
    "obs",
    "obs_compensate",
    "random",
    "small_final",
    "small_init",
    "small_init_small_final",
    "snip",
    "synflow",
    "taylor",
]
