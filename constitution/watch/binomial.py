"""Exact statements about a proportion: Clopper-Pearson intervals and the sign test. Pure; ``math`` only.

The distribution function of the binomial is a regularised incomplete beta function,
``P(X >= k | n, p) = I_p(k, n - k + 1)``, computed by its continued fraction (DLMF 8.17.22) with the modified Lentz
algorithm, so that a hundred thousand trials cost no more than a hundred.

Sources: C. Clopper, E. Pearson, Biometrika 26 (1934); NIST Digital Library of Mathematical Functions, 8.17.
"""

import math
from collections.abc import Callable

BISECTIONS = 60  # halvings of [0, 1]: beyond the last bit that matters
TERMS = 10_000
CONVERGED = 1e-15
TINY = 1e-300


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)`` for ``a, b > 0`` and ``0 <= x <= 1``."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image converges fast
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """``1 + d1/(1 + d2/(1 + ...))`` of DLMF 8.17.22."""
    f = c = 1.0
    d = 0.0
    for i in range(1, TERMS):
        m, odd = divmod(i, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + term * d)
        c = _away_from_zero(1.0 + term / c)
        f *= c * d
        if abs(c * d - 1.0) < CONVERGED:
            break
    return f


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def at_least(k: int, n: int, p: float) -> float:
    """``P(X >= k)`` for a binomial ``X`` of ``n`` trials with probability ``p``."""
    if k <= 0:
        return 1.0
    return 0.0 if k > n else incomplete_beta(p, k, n - k + 1)


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """The exact two-sided interval at level ``1 - alpha`` for the probability behind ``k`` of ``n``.

    Its ends are the probabilities at which ``k`` or more, and ``k`` or fewer, have probability ``alpha / 2``; it covers
    with at least ``1 - alpha``, whatever the probability is.

    Raises:
        ValueError: not ``0 <= k <= n``, or ``alpha`` is no probability strictly between 0 and 1.
    """
    if not 0 <= k <= n or not 0 < alpha < 1:
        raise ValueError(f"no interval for {k} of {n} at alpha {alpha}")
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if k == 0 else _solve(lambda p: at_least(k, n, p) < alpha / 2)
    high = 1.0 if k == n else _solve(lambda p: 1.0 - at_least(k + 1, n, p) > alpha / 2)
    return low, high


def _solve(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if below(middle):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def sign_test(more: int, less: int) -> float:
    """Two-sided exact p-value of "as many changed one way as the other" (McNemar's test without approximation)."""
    n = more + less
    return 1.0 if n == 0 else min(1.0, 2.0 * at_least(max(more, less), n, 0.5))
