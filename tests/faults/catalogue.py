"""Faults of published code, and the tests that must see each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faulty
import prune_faults
from planting import swap

from tombola.attach import handle, ranks, steps
from tombola.attach.pinned import Pinned
from tombola.prune import counting

OPEN_LTH = "facebookresearch/open_lth"
GOOGLE = "google-research/lottery-ticket-hypothesis"
TUTORIAL = "rahulvigneswaran/Lottery-Ticket-Hypothesis-in-Pytorch"
LIGHTNING = "Lightning-AI/pytorch-lightning"
NNI = "microsoft/nni"
SYNFLOW = "ganguli-lab/Synaptic-Flow"
UBER = "uber-research/deconstructing-lottery-tickets"
RIGL = "google-research/rigl"
SNIP_IT = "StijnVerdenius/SNIP-it"
TORCH = "torch.nn.utils.prune"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what ``--only`` takes.
        code: the repository that has it, or had it, with the thread where there is one.
        sentence: what goes wrong.
        plant: puts it into the library.
        tests: pytest nodes that must fail then, and pass otherwise.
        errors: the exceptions it may fail by, besides a failed assertion or expectation.
    """

    name: str
    code: str
    sentence: str
    plant: Callable[[], None]
    tests: tuple[str, ...]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A fault in what the library does not do yet."""

    name: str
    code: str
    sentence: str
    feature: str


OURS = "tests/prune/test_planted_faults.py::test_ours_passes"
SELECT = "tests/prune/test_prune_select.py::"
CONTROL = "tests/prune/test_prune_controls.py::"
PRUNER = "tests/prune/test_pruner.py::"
REWIND = "tests/prune/test_prune_rewinding.py::test_every_field_follows_the_policy"
TRAIN = "tests/train/test_planted_trainers.py::test_right_routines_pass[plain-check_"
SEARCH = "tests/search/test_levels.py::"
MECHANICS = "tests/attach/test_attach_mechanics.py::"
RULES = "tests/attach/test_attach_optimizers.py::"

FAULTS: Sequence[Fault] = (
    Fault(
        "one weight too many",
        GOOGLE,
        "The cutoff's index is inclusive: 201 of 200 go, and all ties with them.",
        faulty.above_the_cutoff,
        (OURS + "[distinct_scores]", OURS + "[half_tied]", SELECT + "test_equal_scores_keep_exactly_k"),
        ("IndexError",),
    ),
    Fault(
        "an index error when all go",
        GOOGLE,
        "Selecting with fraction 1 raises.",
        faulty.index_error_at_the_end,
        (SELECT + "test_equal_scores_keep_exactly_k",),
        ("IndexError",),
    ),
    Fault(
        "ceiling and one",
        OPEN_LTH,
        "ceil(p n) weights in floating point, one more, and all ties: 9 of 7.",
        faulty.ceiling_and_above_the_cutoff,
        (OURS + "[decimals]", OURS + "[half_tied]"),
    ),
    Fault(
        "everything at the threshold",
        SYNFLOW,
        "Scores equal to the k-th value go with it: 1000 of 200.",
        faulty.at_most_the_threshold,
        (OURS + "[all_tied]", OURS + "[half_tied]"),
    ),
    Fault(
        "Python's round",
        "code that calls round()",
        "Halves go to the even neighbour.",
        lambda: swap(counting.half_up, round),
        (OURS + "[halves]",),
    ),
    Fault(
        "dead weights at 9999",
        UBER,
        "A large weight is taken for a dead one.",
        faulty.dead_weights_are_9999,
        (OURS + "[large_weights]",),
    ),
    Fault(
        "dead weights come back",
        f"{SYNFLOW}#12",
        "The scores of pruned weights compete with the others.",
        faulty.dead_weights_are_scored,
        (PRUNER + "test_a_dead_weight_does_not_come_back_whatever_the_criterion_says",),
    ),
    Fault(
        "p^(1/n) pruned",
        "readings of Frankle & Carbin's section 1",
        "p^(1/n) is taken for the fraction removed a round, not kept.",
        faulty.literal_root,
        (OURS + "[equal_rounds]",),
    ),
    Fault(
        "a density called sparsity",
        f"{SYNFLOW}, allenai/hidden-networks#9",
        "The number is the fraction kept, and its name says pruned (or the other way round).",
        faulty.density_is_a_sparsity,
        (
            PRUNER + "test_a_tensor_at_rate_zero_is_never_pruned",
            PRUNER + "test_a_small_tensor_is_not_refused_before_its_scores_are_known",
        ),
    ),
    Fault(
        "an emptied layer in silence",
        f"{SYNFLOW}#7, #12",
        "A global cut leaves 0 weights of a layer.",
        faulty.nothing_is_refused,
        (PRUNER + "test_a_global_cut_that_empties_a_tensor_names_it_or_keeps_the_minimum",),
    ),
    Fault(
        "norms are pruned",
        TUTORIAL,
        "Every parameter called weight is pruned, batch norm's too.",
        faulty.everything_called_weight,
        (
            OURS + "[weights_only]",
            "tests/prune/test_prune_scope.py::test_the_default_prunes_weights_and_says_why_the_rest_stays",
        ),
    ),
    Fault(
        "biases are pruned",
        LIGHTNING,
        "Biases are pruned by default.",
        faulty.biases_too,
        (
            OURS + "[weights_only]",
            "tests/prune/test_prune_scope.py::test_the_default_prunes_weights_and_says_why_the_rest_stays",
        ),
    ),
    Fault(
        "convolutions are skipped",
        "torch.ao.pruning",
        "Only linear layers are pruned, and nothing is said.",
        faulty.linear_layers_only,
        (OURS + "[weights_only]",),
    ),
    Fault(
        "a shuffle that does nothing",
        SYNFLOW,
        "The shuffled mask is bound to a local name and lost.",
        faulty.control("shuffle", prune_faults.no_shuffle),
        (OURS + "[shuffles]", CONTROL + "test_shuffle_keeps_each_count_and_forgets_each_place"),
    ),
    Fault(
        "one permutation for all layers",
        f"{RIGL} (JAX)",
        "One key draws every layer's permutation.",
        faulty.control("shuffle", prune_faults.one_permutation),
        (OURS + "[shuffles]",),
    ),
    Fault(
        "even keeps the sparsity",
        OPEN_LTH,
        "Random masks of the strategy even keep what should go.",
        faulty.control("random", prune_faults.even_random),
        (OURS + "[draws_at_random]", CONTROL + "test_random_masks_keep_the_total_by_their_allocation"),
    ),
    Fault(
        "the survivors' deviation",
        UBER,
        "The signed constant is made of the survivors alone.",
        faulty.control("sign", prune_faults.survivors_sigma),
        (OURS + "[signed_constant]",),
    ),
    Fault(
        "weights are not reset",
        f"{LIGHTNING}#13643, PR 21191",
        "Survivors keep their trained values.",
        faulty.rewinding_takes(params="params"),
        (REWIND, SEARCH + "test_the_search_does_what_a_search_must[check_tickets_start_from_their_own_initialisation]"),
    ),
    Fault(
        "batch-norm statistics stay",
        f"{LIGHTNING} (parameters only are copied)",
        "Running means and variances of the trained network stay.",
        faulty.rewinding_takes(buffers="buffers"),
        (REWIND, SEARCH + "test_the_search_does_what_a_search_must[check_tickets_start_from_their_own_initialisation]"),
    ),
    Fault(
        "moments are not rewound",
        f"{LIGHTNING} (the trainer's optimiser goes on)",
        "The optimiser goes on with the moments of the end.",
        faulty.rewinding_takes(optimizer="optimizer"),
        (REWIND, SEARCH + "test_rewinding_to_a_step_reaches_the_jobs"),
    ),
    Fault(
        "the schedule is not rewound",
        f"{LIGHTNING} (the trainer's schedule goes on)",
        "The learning rate and the data order go on from the end.",
        faulty.rewinding_takes(step="step"),
        (REWIND, SEARCH + "test_rewinding_to_a_step_reaches_the_jobs"),
    ),
    Fault(
        "trained weights are exported",
        f"{NNI} PR 2559",
        "What is exported as the ticket is the trained network.",
        faulty.trained_values_are_exported,
        ("tests/search/test_search_find.py::test_the_ticket_stands_on_its_own[changes2]",),
    ),
    Fault(
        "another rate in round 0",
        TUTORIAL,
        "Round 0 trains at 1e-3 and all others at 1.2e-3.",
        faulty.round_0_has_its_own_rate,
        (TRAIN + "all_ones_is_dense]",),
    ),
    Fault(
        "another data order in each round",
        f"{TUTORIAL} (a loader that shuffles)",
        "A ticket sees other batches than its dense network.",
        faulty.ticket_jobs(faulty.another_order),
        (SEARCH + "test_the_search_does_what_a_search_must[check_families_are_paired]",),
    ),
    Fault(
        "shorter rounds",
        "code that trains tickets for fewer iterations",
        "Rounds are shortened in silence.",
        faulty.ticket_jobs(faulty.half_as_long),
        (SEARCH + "test_the_search_does_what_a_search_must[check_tickets_start_from_their_own_initialisation]",),
    ),
    Fault(
        "no gradient below zero",
        f"{TUTORIAL}#5, #7, #10, #31",
        "Every negative weight's gradient is zeroed.",
        faulty.no_gradient_below_zero,
        (TRAIN + "every_alive_weight_trains]",),
    ),
    Fault(
        "no gradient below zero, attached",
        f"{TUTORIAL}#5, #7, #10, #31",
        "The same, by a mask on a module.",
        faulty.no_attached_gradient_below_zero,
        (RULES + "test_exactly_the_alive_weights_train",),
    ),
    Fault(
        "the test split is watched",
        TUTORIAL,
        "The network kept is the one with the best test score.",
        faulty.test_is_watched,
        (
            TRAIN + "best_is_the_validation_minimum]",
            "tests/train/test_outcome.py::test_the_test_split_is_read_once_for_each_snapshot_and_only_after_training",
        ),
    ),
    Fault(
        "censoring is not told",
        "papers and code that report an argmin at the last evaluation",
        "A minimum at the last evaluation passes for one.",
        faulty.never_censored,
        (
            "tests/stats/test_early_stop.py::test_the_earliest_minimum",
            "tests/train/test_outcome.py::test_a_minimum_at_the_end_is_censored",
        ),
    ),
    Fault(
        "the mask is put on once",
        f"asked in {OPEN_LTH}#6",
        "Gradients move pruned weights after the prune.",
        faulty.gradients_of_the_dead,
        (TRAIN + "pruned_stay_zero]",),
    ),
    Fault(
        "momentum revives",
        f"asked in {OPEN_LTH}#6",
        "Moments of the dense run move pruned weights.",
        faulty.moments_stay,
        (
            TRAIN + "pruned_stay_zero]",
            "tests/prune/test_prune_rewinding.py::test_a_mask_zeroes_pruned_weights_and_their_moments_only",
        ),
    ),
    Fault(
        "momentum revives, attached",
        f"asked in {OPEN_LTH}#6; {TORCH}",
        "The same, by a mask on a module.",
        faulty.attribute(steps, "_clean_moments", faulty.nothing),
        (RULES + "test_moments_of_an_optimiser_state_loaded_later_are_erased",),
    ),
    Fault(
        "weight decay revives",
        TORCH,
        "What a pruned entry stores is not zero, and decay moves it.",
        faulty.attribute(Pinned, "clean_weight", faulty.nothing),
        (RULES + "test_weight_decay_neither_moves_nor_counts",),
    ),
    Fault(
        "pruned entries in the gradient norm",
        TORCH,
        "clip_grad_norm_ counts what is pruned.",
        faulty.attribute(Pinned, "clean_gradient", faulty.nothing),
        (RULES + "test_gradient_norms_count_what_is_alive",),
    ),
    Fault(
        "regrown weights have a past",
        f"{RIGL}; regrowth in general",
        "A weight that grows again has its old moments.",
        faulty.regrown_moments_stay,
        (RULES + "test_a_weight_that_grows_again_has_no_past",),
    ),
    Fault(
        "no deep copy",
        f"{LIGHTNING}#8542, PR 21717",
        "A tensor of the graph is left on the module.",
        faulty.graph_tensors_are_kept,
        (MECHANICS + "test_a_deep_copy_trains_on_its_own",),
        ("RuntimeError",),
    ),
    Fault(
        "masks in the state dict",
        f"{NNI}#3527, {SNIP_IT}#6",
        "A pruned model's keys are not the dense model's.",
        faulty.masks_are_buffers,
        (MECHANICS + "test_state_dicts_load_strictly_both_ways",),
        ("RuntimeError",),
    ),
    Fault(
        "stale weights",
        TORCH,
        "After load_state_dict the weight in use is the old one or a dense one.",
        faulty.attribute(handle, "_after_load", faulty.nothing),
        (MECHANICS + "test_a_weight_is_never_stale",),
    ),
    Fault(
        "a product with the mask",
        TORCH,
        "NaN and Inf in a pruned entry outlive the mask.",
        faulty.multiplied,
        ("tests/prune/test_prune_masks.py::test_a_pruned_entry_is_zero_whatever_it_holds",),
    ),
    Fault(
        "every parameter counts",
        f"{NNI}#2225",
        "The count says 10,000 alive at 90 % sparsity.",
        faulty.every_parameter_counts,
        ("tests/models/test_counting.py::test_at_ninety_percent_sparsity_a_tenth_is_alive",),
    ),
    Fault(
        "ranks hold different masks",
        f"{NNI}#1915, #5205, PR 5242",
        "Each process draws its own mask and goes on.",
        lambda: swap(ranks.check_equal, faulty.nothing),
        ("tests/faults/test_two_ranks.py",),
    ),
    Fault(
        "pickles are opened",
        f"{SNIP_IT}#6",
        "Loading runs what the file says.",
        faulty.pickles_are_opened,
        ("tests/ticket/test_hostile.py::test_a_pickle_is_not_opened",),
    ),
)

MISSING: Sequence[Missing] = (
    Missing(
        "prune_rate is the density",
        "allenai/hidden-networks#9, biprop#1",
        "The name says the opposite.",
        "edge-popup",
    ),
    Missing(
        "scores at a density of 1e-3",
        f"{SYNFLOW}#12",
        "SynFlow stops short of the density.",
        "SNIP, GraSP, SynFlow",
    ),
    Missing(
        "a layer collapses",
        f"{SYNFLOW}#7",
        "One-shot SynFlow empties shortcut convolutions.",
        "SNIP, GraSP, SynFlow",
    ),
    Missing(
        "SNIP by weights",
        f"{SYNFLOW} (before 50ace95)",
        "SNIP's score is made of values, not gradients.",
        "SNIP, GraSP, SynFlow",
    ),
    Missing("topology updates", f"{RIGL} (JAX)", "Drop and grow during a run.", "RigL and SET as search strategies"),
    Missing(
        "resume forgets the masks",
        "verbiiyo/rigl-torch PR 3, PR 5; " + LIGHTNING + " PR 6073",
        "A resumed run is not the same.",
        "resuming an interrupted search",
    ),
    Missing(
        "rounds over several GPUs",
        f"{NNI}#5205",
        "Masks made by one process do not reach the others.",
        "searching over data-parallel processes",
    ),
    Missing("speed-ups by count", f"{NNI}#2225, #3984", "A speed-up is computed, not measured.", "measured speed-ups"),
    Missing(
        "tracing crashes",
        f"{NNI}#4664, #5307, #5738, #2232, #4635, #4885, #5445",
        "The graph cannot be traced.",
        "compaction",
    ),
    Missing("the Lightning loop", LIGHTNING, "The same two lines in Lightning's Trainer.", "a Lightning adapter"),
)
