"""Every strategy and criterion in one line each: what it is and whose. Torch-free, so that ``--help`` can say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final


@final
@dataclass(frozen=True)
class Strategy:
    """A way to find a subnetwork, known by name.

    Attributes:
        what: one line about it.
        source: whose it is, and where it stands.
        criterion: the one that is used where none is named.
        rewinds: whether it may be told what survivors restart from.
        grows: masks change while the network trains, so there is no ticket, only a trained network.
        rounds: what is trained between two cuts may be told to be shorter, or to see less data.
    """

    what: str
    source: str
    criterion: str = "magnitude"
    rewinds: bool = False
    grows: bool = False
    rounds: bool = False


@final
@dataclass(frozen=True)
class About:
    """A criterion, known by name.

    Attributes:
        what: what is kept, in one line.
        source: whose it is, and where it stands.
        allocation: the paper's division among the layers; ``None`` for the network's own.
        looks: it looks at the network and at data, not at the weights alone.
        moved: it needs what training accumulates.
    """

    what: str
    source: str
    allocation: str | None = None
    looks: bool = False
    moved: bool = False


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        "imp": Strategy(
            "train, prune some, reset the survivors to their initial values, repeat",
            "Frankle & Carbin (2019), section 2",
            rewinds=True,
            rounds=True,
        ),
        "adaptive": Strategy(
            "imp in few rounds with big cuts, finer where the last ticket weakened",
            "ours; connectivity as in Paul et al. (2023), section 3",
            rewinds=True,
        ),
        "continued": Strategy(
            "train, prune some and go on with the trained weights, repeat; rewind once, at the gates",
            "ours, after Zhu & Gupta (2017)",
            rewinds=True,
            rounds=True,
        ),
        "settled": Strategy(
            "imp whose rounds end when their mask has settled",
            "after You et al. (2020), section 3.2",
            rewinds=True,
            rounds=True,
        ),
        "early-bird": Strategy(
            "prune once, as soon as the mask of the dense run has settled; reset the survivors",
            "You et al. (2020), section 3.2",
            rewinds=True,
        ),
        "one-shot": Strategy(
            "train, prune once, reset the survivors to their initial values",
            "Frankle & Carbin (2019), section 1",
            rewinds=True,
        ),
        "lr-rewind": Strategy(
            "train, prune some, keep the trained weights, rewind the learning rate, repeat",
            "Renda et al. (2020), section 3",
        ),
        "finetune": Strategy(
            "train, prune some, keep the trained weights, fine-tune, repeat", "Han et al. (2015), section 3"
        ),
        "one-shot-finetune": Strategy(
            "train, prune once, keep the trained weights, fine-tune", "Han et al. (2015), section 3"
        ),
        "obd": Strategy(
            "train, delete the weights of least saliency, retrain, look, repeat",
            "LeCun et al. (1990), section 2.2",
            criterion="obd",
        ),
        "at-init": Strategy(
            "prune the initial network before anything is trained", "Lee et al. (2019), Algorithm 1", criterion="snip"
        ),
        "gradual": Strategy(
            "prune while training, along a cubic ramp", "Zhu & Gupta (2017), equation 1", grows=True
        ),
        "gradual-rewind": Strategy(
            "prune while training, along a cubic ramp; then reset the survivors and train them",
            "ours; the ramp is Zhu & Gupta's (2017), equation 1",
        ),
        "gem-miner": Strategy(
            "learn a score for every untrained weight and freeze the lowest at 0; then train the survivors",
            "Sreenivasan et al. (2022), Algorithm 1",
        ),
        "transfer": Strategy(
            "the masks of another finished search (--source), on these data from these initial values",
            "Morcos et al. (2019), section 3",
            rewinds=True,
        ),
        "set": Strategy(
            "train sparse from the start; drop the smallest and grow at random", "Mocanu et al. (2018), Algorithm 1",
            criterion="random", grows=True,
        ),
        "rigl": Strategy(
            "train sparse from the start; drop the smallest and grow where the gradient is largest",
            "Evci et al. (2020), Algorithm 1", criterion="random", grows=True,
        ),
    }
)  # fmt: skip
"""Name -> what it is."""

_ZHOU: Final = "Zhou et al. (2019), section 2"
_OBD: Final = "LeCun et al. (1990), section 2"

CRITERIA: Final[Mapping[str, About]] = MappingProxyType(
    {
        "magnitude": About("the trained weight is large (Zhou's large_final)", "Han et al. (2015), section 3"),
        "small-final": About("the trained weight is small", _ZHOU),
        "large-init": About("the initial weight is large", _ZHOU),
        "small-init": About("the initial weight is small", _ZHOU),
        "large-init-large-final": About("the initial and the trained weight are large, by the lesser rank", _ZHOU),
        "small-init-small-final": About("the initial and the trained weight are small, by the greater rank", _ZHOU),
        "movement": About("the weight moved far from its initial value", _ZHOU),
        "magnitude-increase": About("the weight grew", _ZHOU),
        "large-final-same-sign": About("the trained weight is large and kept its sign", _ZHOU),
        "large-final-diff-sign": About("the trained weight is large and changed its sign", _ZHOU),
        "magnitude-increase-same-sign": About("the weight grew and kept its sign", _ZHOU),
        "magnitude-increase-diff-sign": About("the weight grew and changed its sign", _ZHOU),
        "random": About("a draw: what any other has to beat", "Frankle & Carbin (2019), figure 1"),
        "snip": About("the loss is sensitive to the weight", "Lee et al. (2019), equation 6", "global", looks=True),
        "grasp": About(
            "removing the weight would reduce the gradient flow", "Wang et al. (2020), equation 8", "global", looks=True
        ),
        "grasp-magnitude": About(
            "removing the weight would change the gradient flow", "Frankle et al. (2021), section 3", "global",
            looks=True,
        ),
        "synflow": About(
            "much passes through the weight, without data, in 100 steps", "Tanaka et al. (2020), Algorithm 1",
            "global", looks=True,
        ),
        "taylor": About(
            "removing the weight would change the loss, squared, by the first order",
            "Molchanov et al. (2019), equation 8", "global", looks=True,
        ),
        "movement-pruning": About(
            "training moved the weight away from zero", "Sanh et al. (2020), section 4", moved=True
        ),
        "obd": About(
            "removing the weight would raise the loss, by the exact Gauss-Newton diagonal", _OBD, "global", looks=True
        ),
        "obd-first": About("obd with the term of first order", _OBD, "global", looks=True),
        "obd-lecun": About("obd with the diagonal as it was published, layer by layer", f"{_OBD}.1", "global",
                           looks=True),
        "obd-lecun-first": About("obd-lecun with the term of first order", f"{_OBD}.1", "global", looks=True),
        "obd-hutchinson": About(
            "obd with the Hessian's diagonal estimated by random probes", f"{_OBD}; probes of Hutchinson (1989)",
            "global", looks=True,
        ),
        "obd-hutchinson-first": About("obd-hutchinson with the term of first order", _OBD, "global", looks=True),
        "obs": About(
            "removing the weight would raise the loss, the others making up for it; in blocks",
            "Hassibi & Stork (1993), equation 5", "global", looks=True,
        ),
    }
)  # fmt: skip
"""Name -> what it is."""

STRUCTURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "none": "single weights",
        "N:M": "at most N of every M consecutive weights along the input, such as 2:4: Zhou et al. (2021), section 3",
        "block:RxC": "blocks of R rows and C columns, such as block:4x4: Narang et al. (2017), section 3",
        "neurons": "whole neurons and channels, those tied by residual streams together: Li et al. (2017), section 3",
        "heads": "whole attention heads: Michel et al. (2019), section 2",
    }
)
"""Structure -> what is kept or pruned together, and whose it is."""
