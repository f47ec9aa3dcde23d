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
    "lee2019snip": """@inproceedings{lee2019snip,
  title     = {{SNIP}: Single-shot Network Pruning based on Connection Sensitivity},
  author    = {Lee, Namhoon and Ajanthan, Thalaiyasingam and Torr, Philip H. S.},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1810.02340}
}""",
    "wang2020picking": """@inproceedings{wang2020picking,
  title     = {Picking Winning Tickets Before Training by Preserving Gradient Flow},
  author    = {Wang, Chaoqi and Zhang, Guodong and Grosse, Roger},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  eprint    = {2002.07376}
}""",
    "tanaka2020pruning": """@inproceedings{tanaka2020pruning,
  title     = {Pruning Neural Networks without any Data by Iteratively Conserving Synaptic Flow},
  author    = {Tanaka, Hidenori and Kunin, Daniel and Yamins, Daniel L. K. and Ganguli, Surya},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2006.05467}
}""",
    "molchanov2019importance": """@inproceedings{molchanov2019importance,
  title     = {Importance Estimation for Neural Network Pruning},
  author    = {Molchanov, Pavlo and Mallya, Arun and Tyree, Stephen and Frosio, Iuri and Kautz, Jan},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2019},
  eprint    = {1906.10771}
}""",
    "sanh2020movement": """@inproceedings{sanh2020movement,
  title     = {Movement Pruning: Adaptive Sparsity by Fine-Tuning},
  author    = {Sanh, Victor and Wolf, Thomas and Rush, Alexander M.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2005.07683}
}""",
    "lecun1990optimal": """@inproceedings{lecun1990optimal,
  title     = {Optimal Brain Damage},
  author    = {LeCun, Yann and Denker, John S. and Solla, Sara A.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {1990},
  volume    = {2},
  pages     = {598--605}
}""",
    "hassibi1993second": """@inproceedings{hassibi1993second,
  title     = {Second Order Derivatives for Network Pruning: Optimal Brain Surgeon},
  author    = {Hassibi, Babak and Stork, David G.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {1993},
  volume    = {5},
  pages     = {164--171}
}""",
    "hutchinson1989stochastic": """@article{hutchinson1989stochastic,
  title     = {A Stochastic Estimator of the Trace of the Influence Matrix for {Laplacian} Smoothing Splines},
  author    = {Hutchinson, Michael F.},
  journal   = {Communications in Statistics - Simulation and Computation},
  year      = {1989},
  volume    = {18},
  number    = {3},
  pages     = {1059--1076}
}""",
    "singh2020woodfisher": """@inproceedings{singh2020woodfisher,
  title     = {{WoodFisher}: Efficient Second-Order Approximation for Neural Network Compression},
  author    = {Singh, Sidak Pal and Alistarh, Dan},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2004.14340}
}""",
    "zhu2017prune": """@misc{zhu2017prune,
  title     = {To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression},
  author    = {Zhu, Michael and Gupta, Suyog},
  year      = {2017},
  eprint    = {1710.01878}
}""",
    "mocanu2018scalable": """@article{mocanu2018scalable,
  title     = {Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity inspired by Network
             Science},
  author    = {Mocanu, Decebal Constantin and Mocanu, Elena and Stone, Peter and Nguyen, Phuong H.
             and Gibescu, Madeleine and Liotta, Antonio},
  journal   = {Nature Communications},
  year      = {2018},
  volume    = {9},
  pages     = {2383},
  eprint    = {1707.04780}
}""",
    "liu2019rethinking": """@inproceedings{liu2019rethinking,
  title     = {Rethinking the Value of Network Pruning},
  author    = {Liu, Zhuang and Sun, Mingjie and Zhou, Tinghui and Huang, Gao and Darrell, Trevor},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1810.05270}
}""",
    "zhou2021learning": """@inproceedings{zhou2021learning,
  title     = {Learning {N:M} Fine-grained Structured Sparse Neural Networks From Scratch},
  author    = {Zhou, Aojun and Ma, Yukun and Zhu, Junnan and Liu, Jianbo and Zhang, Zhijie and Yuan, Kun and Sun, Wenxiu
               and Li, Hongsheng},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2102.04010}
}""",
    "sreenivasan2022rare": """@inproceedings{sreenivasan2022rare,
  title     = {Rare Gems: Finding Lottery Tickets at Initialization},
  author    = {Sreenivasan, Kartik and Sohn, Jy-yong and Yang, Liu and Grinde, Matthew and Nagle, Alliot and
               Wang, Hongyi and Xing, Eric and Lee, Kangwook and Papailiopoulos, Dimitris},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  eprint    = {2202.12002}
}""",
    "ramanujan2020whats": """@inproceedings{ramanujan2020whats,
  title     = {What's Hidden in a Randomly Weighted Neural Network?},
  author    = {Ramanujan, Vivek and Wortsman, Mitchell and Kembhavi, Aniruddha and Farhadi, Ali and
               Rastegari, Mohammad},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2020},
  eprint    = {1911.13299}
}""",
    "malach2020proving": """@inproceedings{malach2020proving,
  title     = {Proving the Lottery Ticket Hypothesis: Pruning is All You Need},
  author    = {Malach, Eran and Yehudai, Gilad and Shalev-Shwartz, Shai and Shamir, Ohad},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {2002.00585}
}""",
    "pensia2020optimal": """@inproceedings{pensia2020optimal,
  title     = {Optimal Lottery Tickets via Subset Sum: Logarithmic Over-Parameterization is Sufficient},
  author    = {Pensia, Ankit and Rajput, Shashank and Nagle, Alliot and Vishwakarma, Harit and
               Papailiopoulos, Dimitris},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2006.07990}
}""",
    "orseau2020logarithmic": """@inproceedings{orseau2020logarithmic,
  title     = {Logarithmic Pruning is All You Need},
  author    = {Orseau, Laurent and Hutter, Marcus and Rivasplata, Omar},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2006.12156}
}""",
    "dacunha2022proving": """@inproceedings{dacunha2022proving,
  title     = {Proving the Strong Lottery Ticket Hypothesis for Convolutional Neural Networks},
  author    = {da Cunha, Arthur and Natale, Emanuele and Viennot, Laurent},
  booktitle = {International Conference on Learning Representations},
  year      = {2022}
}""",
    "burkholz2022most": """@inproceedings{burkholz2022most,
  title     = {Most Activation Functions Can Win the Lottery Without Excessive Depth},
  author    = {Burkholz, Rebekka},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  eprint    = {2205.02321}
}""",
    "lueker1998exponentially": """@article{lueker1998exponentially,
  title   = {Exponentially Small Bounds on the Expected Optimum of the Partition and Subset Sum Problems},
  author  = {Lueker, George S.},
  journal = {Random Structures \\& Algorithms},
  volume  = {12},
  number  = {1},
  pages   = {51--62},
  year    = {1998}
}""",
    "horowitz1974computing": """@article{horowitz1974computing,
  title   = {Computing Partitions with Applications to the Knapsack Problem},
  author  = {Horowitz, Ellis and Sahni, Sartaj},
  journal = {Journal of the ACM},
  volume  = {21},
  number  = {2},
  pages   = {277--292},
  year    = {1974}
}""",
    "narang2017block": """@misc{narang2017block,
  title     = {Block-Sparse Recurrent Neural Networks},
  author    = {Narang, Sharan and Undersander, Eric and Diamos, Gregory},
  year      = {2017},
  eprint    = {1711.02782}
}""",
    "li2017pruning": """@inproceedings{li2017pruning,
  title     = {Pruning Filters for Efficient {ConvNets}},
  author    = {Li, Hao and Kadav, Asim and Durdanovic, Igor and Samet, Hanan and Graf, Hans Peter},
  booktitle = {International Conference on Learning Representations},
  year      = {2017},
  eprint    = {1608.08710}
}""",
    "michel2019sixteen": """@inproceedings{michel2019sixteen,
  title     = {Are Sixteen Heads Really Better than One?},
  author    = {Michel, Paul and Levy, Omer and Neubig, Graham},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  eprint    = {1905.10650}
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
    "small-final": ("zhou2019deconstructing",),
    "large-init": ("zhou2019deconstructing",),
    "small-init": ("zhou2019deconstructing",),
    "large-init-large-final": ("zhou2019deconstructing",),
    "small-init-small-final": ("zhou2019deconstructing",),
    "movement": ("zhou2019deconstructing",),
    "magnitude-increase": ("zhou2019deconstructing",),
    "large-final-same-sign": ("zhou2019deconstructing",),
    "large-final-diff-sign": ("zhou2019deconstructing",),
    "magnitude-increase-same-sign": ("zhou2019deconstructing",),
    "magnitude-increase-diff-sign": ("zhou2019deconstructing",),
    "snip": ("lee2019snip",),
    "grasp": ("wang2020picking",),
    "grasp-magnitude": ("wang2020picking", "frankle2021missing"),
    "synflow": ("tanaka2020pruning",),
    "taylor": ("molchanov2019importance",),
    "movement-pruning": ("sanh2020movement",),
    "obd": ("lecun1990optimal",),
    "obd-first": ("lecun1990optimal",),
    "obd-lecun": ("lecun1990optimal",),
    "obd-lecun-first": ("lecun1990optimal",),
    "obd-hutchinson": ("lecun1990optimal", "hutchinson1989stochastic"),
    "obd-hutchinson-first": ("lecun1990optimal", "hutchinson1989stochastic"),
    "obs": ("hassibi1993second", "singh2020woodfisher"),
    "random": ("frankle2019lottery",),
    "gem-miner": ("sreenivasan2022rare",),
    "edge-popup": ("ramanujan2020whats",),
    "supermask": ("zhou2019deconstructing",),
    "construct": (
        "malach2020proving",
        "pensia2020optimal",
        "dacunha2022proving",
        "burkholz2022most",
        "lueker1998exponentially",
        "horowitz1974computing",
    ),
    "bounds": ("malach2020proving", "orseau2020logarithmic", "pensia2020optimal", "lueker1998exponentially"),
    "at-init": ("lee2019snip", "frankle2021missing"),
    "lr-rewind": ("renda2020comparing",),
    "one-shot-finetune": ("han2015learning",),
    "gradual": ("zhu2017prune",),
    "set": ("mocanu2018scalable",),
    "rigl": ("evci2020rigging",),
    "small-dense": ("liu2019rethinking",),
    "small-dense-flops": ("liu2019rethinking",),
    "n:m": ("zhou2021learning",),
    "block": ("narang2017block",),
    "neurons": ("li2017pruning",),
    "heads": ("michel2019sixteen",),
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
