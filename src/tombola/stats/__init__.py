"""The verdict: from the scores of replicates to a claim with a known error rate.

Lives here: the tests on paired differences, the sequence over densities, power, the estimate, the judge, what a score
is, and results as CSV. May import: numpy, scipy (inside functions; it is slow to import), tombola.errors,
tombola.types. No torch. Proved by: tests/stats, where each test's error rate is simulated.
"""

from tombola.stats.comparison import Comparison, ControlComparison, MeanInterval, SpeedComparison
from tombola.stats.early_stop import early_stop
from tombola.stats.estimate import Estimate, estimate_crossing
from tombola.stats.judgement import Judgement, LevelVerdict, Verdict, as_json
from tombola.stats.looks import Looks, spend
from tombola.stats.paired import effect_size, equivalence, non_inferiority, sign_flip, superiority, t_test
from tombola.stats.power import detectable_gap, power_non_inferiority, required_replicates
from tombola.stats.results import LevelResults, Results, Run, drop_incomplete
from tombola.stats.scale import ACCURACY, Scale
from tombola.stats.sequence import default_gates, holm, passed
from tombola.stats.sequential import Gate, GateState, Reached, Sequential, Settled, combine, settled
from tombola.stats.table import read_csv, write_csv
from tombola.stats.verdict import judge

__all__ = [
    "ACCURACY",
    "Comparison",
    "ControlComparison",
    "Estimate",
    "Gate",
    "GateState",
    "Judgement",
    "LevelResults",
    "LevelVerdict",
    "Looks",
    "MeanInterval",
    "Reached",
    "Results",
    "Run",
    "Scale",
    "Sequential",
    "Settled",
    "SpeedComparison",
    "Verdict",
    "as_json",
    "combine",
    "default_gates",
    "detectable_gap",
    "drop_incomplete",
    "early_stop",
    "effect_size",
    "equivalence",
    "estimate_crossing",
    "holm",
    "judge",
    "non_inferiority",
    "passed",
    "power_non_inferiority",
    "read_csv",
    "required_replicates",
    "settled",
    "sign_flip",
    "spend",
    "superiority",
    "t_test",
    "write_csv",
]
