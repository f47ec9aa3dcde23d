"""What to cite: the papers behind each method, as BibTeX."""

from typing import Final

from tombola.errors import UnknownName

_ENTRIES: Final[dict[str, str]] = {
    "frankle2019lottery": """@inproceedings{frankle2019lottery,
  title     = {The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks},
  author    = {Frankle, Jonathan and Carbin, Michael},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1803.03635}
}""",
    "frankle2020linear": """@inproceedings{frankle2020linear,
  title     = {Linear Mode Connectivity and the Lottery Ticket Hypothesis},
  author    = {Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {1912.05671}
}""",
    "frankle2021missing": """@inproceedings{frankle2021missing,
  title     = {Pruning Neural Networks at Initialization: Why Are We Missing the Mark?},
  author    = {Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2009.08576}
}""",
    "zhou2019deconstructing": """@inproceedings{zhou2019deconstructing,
  title     = {Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask},
  author    = {Zhou, Hattie and Lan, Janice and Liu, Rosanne and Yosinski, Jason},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  eprint    = {1905.01067}
}""",
    "renda2020comparing": """@inproceedings{renda2020comparing,
  title     = {Comparing Rewinding and Fine-tuning in Neural Network Pruning},
  author    = {Renda, Alex and Frankle, Jonathan and Carbin, Michael},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  eprint    = {2003.02389}
}""",
    "han2015learning": """@inproceedings{han2015learning,
  title     = {Learning both Weights and Connections for Efficient Neural Networks},
  author    = {Han, Song and Pool, Jeff and Tran, John and Dally, William J.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2015},
  eprint    = {1506.02626}
}""",
    "evci2020rigging": """@inproceedings{evci2020rigging,
  title     = {Rigging the Lottery: Making All Tickets Winners},
  author    = {Evci, Utku and Gale, Trevor and Menick, Jacob and Castro, Pablo Samuel and Elsen, Erich},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {1911.11134}
}""",
    "lee2021layer": """@inproceedings{lee2021layer,
  title     = {Layer-adaptive Sparsity for the Magnitude-based Pruning},
  author    = {Lee, Jaeho and Park, Sejun and Mo, Sangwoo and Ahn, Sungsoo and Shin, Jinwoo},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2010.07611}
}""",
    "holm1979simple": """@article{holm1979simple,
  title   = {A Simple Sequentially Rejective Multiple Test Procedure},
  author  = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  number  = {2},
  pages   = {65--70},
  year    = {1979}
}""",
    "schuirmann1987comparison": """@article{schuirmann1987comparison,
  title   = {A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the Equivalence
             of Average Bioavailability},
  author  = {Schuirmann, Donald J.},
  journal = {Journal of Pharmacokinetics and Biopharmaceutics},
  volume  = {15},
  number  = {6},
  pages   = {657--680},
  year    = {1987}
}""",
    "alpaydin1998optical": """@misc{alpaydin1998optical,
  title     = {Optical Recognition of Handwritten Digits},
  author    = {Alpaydin, E. and Kaynak, C.},
  year      = {1998},
  publisher = {UCI Machine Learning Repository},
  doi       = {10.24432/C50P49}
}""",
}

_BY_TOPIC: Final[dict[str, tuple[str, ...]]] = {
    "imp": ("frankle2019lottery",),
    "one-shot": ("frankle2019lottery",),
    "finetune": ("han2015learning",),
    "magnitude": ("han2015learning", "frankle2019lottery"),
    "layer-rates": ("frankle2019lottery",),
    "erk": ("evci2020rigging",),
    "random-erk": ("evci2020rigging",),
    "lamp": ("lee2021layer",),
    "step": ("frankle2020linear",),
    "lr": ("renda2020comparing",),
    "reinit": ("frankle2019lottery",),
    "shuffle": ("frankle2021missing",),
    "permute": ("zhou2019deconstructing",),
    "sign": ("zhou2019deconstructing",),
    "verdict": ("holm1979simple", "schuirmann1987comparison"),
    "digits": ("alpaydin1998optical",),
}

TOMBOLA: Final = """@software{tombola,
  title   = {tombola: find, prove and ship winning lottery tickets},
  author  = {{The tombola developers}},
  version = {VERSION},
  year    = {2026},
  license = {Apache-2.0}
}"""


def citations(*topics: str, version: str) -> str:
    """Give the BibTeX of tombola and of the papers behind the named topics.

    Args:
        topics: strategies, criteria, allocations, rewinds, controls or data sets, by their names on the command line;
            none for everything that a default search rests on.
        version: tombola's.

    Raises:
        UnknownName: a topic without an entry.

    Example:
        >>> "1911.11134" in citations("erk", version="1")
        True
    """
    for topic in topics:
        if topic not in _BY_TOPIC:
            raise UnknownName.among("topic to cite", topic, _BY_TOPIC)
    chosen = topics or ("imp", "magnitude", "reinit", "shuffle", "verdict", "digits")
    keys = dict.fromkeys(key for topic in chosen for key in _BY_TOPIC[topic])
    return "\n\n".join([TOMBOLA.replace("VERSION", version), *(_ENTRIES[key] for key in keys)])
