"""How many random candidates a weight needs: what the theorems say, and what is seen.

Products ``u v`` with ``u`` from U[0, 1] and ``v`` from U[-1, 1] have the density ``-ln|z| / 2`` on [-1, 1].
"""

import math
from typing import Final

from tombola.errors import InvalidValue

_UNIFORM_SHARE: Final = math.log(2) / 2
"""The product law contains U[-1/2, 1/2] with this weight: its density is at least that there."""

_OFF_CENTRE: Final = 0.25
"""The target of a typical weight, where targets reach up to 1/2."""


def tries(weight: float, error: float) -> float:
    r"""Give how many pairs are expected until one product is within an error of a weight.

    Malach et al. (2020), section 2, where each weight is one pair: :math:`1 / (\epsilon \ln(1 / |w|))`, from the
    density of the product law at the weight.

    Args:
        weight: in (0, 1) by magnitude.
        error: above 0.

    Raises:
        InvalidValue: out of range.

    Example:
        >>> round(tries(0.2, 1e-3))
        621
    """
    _check_error(error)
    if not 0 < abs(weight) < 1:
        raise InvalidValue(f"the weight is {weight}; the products lie between -1 and 1, and at 0 nothing is needed.")
    return 1 / (error * -math.log(abs(weight)))


def malach(weight: float, error: float, weights: int = 1, failure: float = 0.01) -> float:
    """Give how many pairs each weight needs so that all of them have one within the error, but for a probability.

    Args:
        weight: as for :func:`tries`; the hardest is the largest.
        error: above 0.
        weights: of the whole network.
        failure: the probability that any of them has none, in (0, 1).

    Raises:
        InvalidValue: out of range.

    Example:
        >>> round(malach(0.2, 1e-3, 266_610, 0.01))
        10624
    """
    _check_failure(failure)
    return tries(weight, error) * math.log(max(1, weights) / failure)


def lueker(error: float, failure: float = 0.01, constant: float = 1.0) -> float:
    r"""Give how many candidates a subset sum needs, in the order of Pensia et al. (2020).

    Their Corollary 1 after Lueker (1998): :math:`n \ge C \log(2 / \min(\epsilon, \delta))` uniform candidates have a
    subset within the error of every target in [-1/2, 1/2], but for a probability. C is universal and not stated; with
    C = 1 and the logarithm to base two it is the least that counting subsets allows. Products contain a uniform one
    in ln(2)/2 = 35 % of the draws, so that many times more are needed.

    Args:
        error: above 0.
        failure: the probability of a miss, in (0, 1).
        constant: C.

    Raises:
        InvalidValue: out of range.

    Example:
        >>> round(lueker(1e-3), 1)
        31.6
    """
    _check_error(error)
    _check_failure(failure)
    return constant * math.log2(2 / min(error, failure)) / _UNIFORM_SHARE


def orseau(error: float, failure: float = 0.01, weights: int = 1, constant: float = 1.0) -> float:
    r"""Give how many random weights a decomposition into powers needs, in the order of Orseau et al. (2020).

    A weight is written as a sum of :math:`k = \log_{3/2}(3 / \epsilon)` terms that shrink by a golden ratio, each
    found among samples of a law of density near 1/|z|, which has as many of each size: :math:`C k \ln(k m / \delta)`
    for m weights. The constant is not taken from the paper.

    Args:
        error: above 0.
        failure: the probability that any weight is missed, in (0, 1).
        weights: of the whole network, m.
        constant: C.

    Raises:
        InvalidValue: out of range.
    """
    _check_error(error)
    _check_failure(failure)
    terms = max(1, math.ceil(math.log(3 / error) / math.log(1.5)))
    return constant * terms * math.log(max(1, weights) * terms / failure)


def median_error(count: int, weight: float = 0.0) -> float:
    r"""Give the typical distance of the nearest subset sum of n products from a weight.

    The 2^n sums are locally a Poisson process of the density of their normal limit, of variance n/18, at the weight:
    :math:`\ln 2 \sqrt{2 \pi n / 18}\, e^{9 w^2 / n} / 2^{n + 1}`.

    Args:
        count: n, at least 1.
        weight: of the target.

    Example:
        >>> f"{median_error(16):.2g}"
        '1.2e-05'
    """
    return math.log(2) * math.sqrt(2 * math.pi * count / 18) * math.exp(9 * weight**2 / count) / 2 ** (count + 1)


def miss(count: int) -> float:
    r"""Give about how often no subset comes near: :math:`5 e^{-0.45 n}`, as was measured; 1 at most.

    Lists that cannot reach a weight at all: too few candidates of its sign, or too small ones.
    """
    return min(1.0, 5 * math.exp(-0.45 * count))


def candidates(error: float, weight: float = _OFF_CENTRE) -> float:
    """Give how many candidates have that error as their median: the inverse of :func:`median_error`.

    Raises:
        InvalidValue: an error that is not above 0.

    Example:
        >>> round(candidates(1e-3), 1), round(candidates(1e-4), 1)
        (9.4, 12.9)
    """
    _check_error(error)
    low, high = 1.0, 200.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        at = math.log(2) * math.sqrt(2 * math.pi * middle / 18) * math.exp(9 * weight**2 / middle) * 2 ** -(middle + 1)
        low, high = (middle, high) if at > error else (low, middle)
    return low


def _check_error(error: float) -> None:
    if not 0 < error < math.inf:
        raise InvalidValue(f"the error is {error}; it is a number above 0, such as 0.001.")


def _check_failure(failure: float) -> None:
    if not 0 < failure < 1:
        raise InvalidValue(f"the probability of failure is {failure}; it lies between 0 and 1, such as 0.01.")
