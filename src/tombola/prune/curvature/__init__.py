"""Second derivatives of the training loss: exact where that is cheap, as published, and by random probes.

Lives here: the loss's own Hessian (``output``), gradients example by example (``rows``), the diagonal of the
generalised Gauss-Newton matrix (``ggn``), LeCun's recursion (``recursion``), random probes (``hutchinson``), and the
blocks that Optimal Brain Surgeon inverts (``blocks``).
"""

from tombola.prune.curvature.blocks import Grams, damping, enough, grams, losses, updates
from tombola.prune.curvature.examples import Examples, examples, mean_gradient
from tombola.prune.curvature.ggn import ggn_diagonal
from tombola.prune.curvature.hutchinson import hutchinson_diagonal
from tombola.prune.curvature.output import output_diagonal, output_factor
from tombola.prune.curvature.recursion import lecun_diagonal
from tombola.prune.curvature.rows import Rows, rows

__all__ = [
    "Examples",
    "Grams",
    "Rows",
    "damping",
    "enough",
    "examples",
    "ggn_diagonal",
    "grams",
    "hutchinson_diagonal",
    "lecun_diagonal",
    "losses",
    "mean_gradient",
    "output_diagonal",
    "output_factor",
    "rows",
    "updates",
]
