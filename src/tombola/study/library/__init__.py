"""The papers' experiments as named studies: a module for each paper's claims, a function for each study."""

from tombola.errors import UnknownName
from tombola.study.claims import Claim
from tombola.study.library import (
    cheaper,
    evci_2020,
    frankle_2021,
    frankle_carbin_2019,
    han_2015,
    lecun_1990,
    liu_2019,
    pruning_methods,
    renda_2020,
    zhu_gupta_2017,
)
from tombola.study.spec import Spec

SIZES = ("smoke", "small", "paper")
STUDIES = {**frankle_carbin_2019.STUDIES, **pruning_methods.STUDIES, **cheaper.STUDIES}
CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claims in (
        *(paper.CLAIMS for paper in (frankle_carbin_2019, han_2015, renda_2020)),
        *(paper.CLAIMS for paper in (frankle_2021, evci_2020, lecun_1990, zhu_gupta_2017, liu_2019)),
        renda_2020.AMONG_METHODS,
    )
    for claim in claims
}


def named(name: str, size: str = "small") -> Spec:
    """Give a named study at a size.

    Raises:
        UnknownName: no such study or size.
    """
    if name not in STUDIES:
        raise UnknownName.among("study", name, STUDIES, "Your own is a file: tombola study run FILE.toml.")
    if size not in SIZES:
        raise UnknownName.among("size of a study", size, SIZES)
    return STUDIES[name](size)


def claims_of(spec: Spec) -> list[Claim]:
    """Give the claims that a study settles.

    Raises:
        UnknownName: it names one that is not known.
    """
    for name in spec.claims:
        if name not in CLAIMS:
            raise UnknownName.among("claim", name, CLAIMS)
    return [CLAIMS[name] for name in spec.claims]
