r"""The bet against "the rate did not rise": an e-value for two counts whose common rate nobody knows.

Baseline: ``n0`` events in exposure ``t0``. Watch: ``m`` events in exposure ``u``. Null hypothesis: the rate in the
watch is at most ``rho * lambda0 + slack`` for "up", at least ``rho * lambda0 - slack`` for "down", for *whatever*
``lambda0`` is; ``slack`` is absolute, per unit of exposure, and no rate is below zero. Counts have long-run Fano factor
``phi``; they are modelled as negative binomial with variance/mean ``phi``, whose log-moment generating function per
unit mean is::

    g(s) = -ln(1 - (phi - 1)(e^s - 1)) / (phi - 1)          (phi -> 1: e^s - 1)

For one alternative, "``q`` times the tolerated rate", the bet is::

    W = exp(s * m - theta * n0 - |g(s)| * slack * u)
    q' = q (t0 + rho u) / (t0 + rho q u)                     the alternative's rate over the pooled rate
    e^s = phi q' / (1 + q'(phi - 1))                         the tilt that makes the mean q' times as large: g'(s) = q'
    t0 * h(theta) = rho * u * g(s),  h(theta) = -g(-theta)   which cancels lambda0

With ``A = ln((1 + q'(phi - 1)) / phi)`` all is closed form: ``s = ln q' - A``, ``g(s) = A / (phi - 1)``,
``theta = -ln(1 - y)``, ``y = (exp(A rho u / t0) - 1) / (phi - 1)``; ``q' - 1 = (q - 1)/(1 + a q)`` avoids cancellation.

Proved. ``theta`` always exists: as ``q'`` is below ``(1 + a)/a`` with ``a = rho u / t0``, ``a A < a ln(1 +
(phi-1)/(phi a)) <= (phi-1)/phi <= ln phi``, so ``y < 1``. ``E[W] = 1`` for EVERY ``lambda0`` on the boundary, and at
most 1 anywhere inside the null, since ``W`` rises in ``m`` (falls, for ``q < 1``). Slack makes the mean on the boundary
``rho lambda0 +- slack``, and so ``E[exp(s m)]`` larger by ``exp(|g(s)| slack u)`` either way, as ``g(s)`` has the sign
of ``s``: that is what ``W`` pays. Where slack tolerates a fall to nothing, ``E[W] = exp(|g| (rho lambda0 - slack) u)
<= 1`` without any event. For ``phi = 1`` it is the likelihood ratio of the conditional binomial, the right-Haar Bayes
factor of the Polya process: a martingale if the baseline is "the last n0 events" and there is no slack, so Ville's
inequality bounds ``P(sup W >= 1/alpha)`` by
``alpha`` at any schedule of looks. A baseline of fixed length has one event more (towards "up") at most: ``up``
counts ``n0 + phi``, ``down`` counts ``n0``.

Not proved, simulated (docs/watch.md): the supremum over looks for ``phi > 1``.

A mixture over ``q`` is again an e-value and needs no tuning to an effect size. Sources: Lindon & Malek, NeurIPS
2022 (arXiv 2011.03567); Perez-Ortiz, Lardy, de Heide, Grunwald, Annals of Statistics 2024 (2208.07610); the
negative binomial tilt and the closed form are derived here.

Pure: ``math`` only, so that it may run anywhere, a workflow included.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

Direction = Literal["up", "down"]

EFFECTS = 16
SMALLEST_EFFECT = 1.05
LARGEST_EFFECT = 60.0
UP_RATIOS = tuple(SMALLEST_EFFECT * (LARGEST_EFFECT / SMALLEST_EFFECT) ** (i / (EFFECTS - 1)) for i in range(EFFECTS))
DOWN_RATIOS = tuple(1.0 / q for q in UP_RATIOS)
POISSON_BELOW = 1e-12  # phi - 1 this small is Poisson: the quotients above would lose their digits
NEGLIGIBLE = -45.0  # e^-45 is below one unit in the last place of the sum it would join

Coefficients = tuple[tuple[float, float], ...]


def effects(direction: Direction) -> tuple[float, ...]:
    """The alternatives ``q`` of one direction: 16, log-spaced, from 5 % to a factor of 60."""
    return UP_RATIOS if direction == "up" else DOWN_RATIOS


def counted_baseline(direction: Direction, n0: float, phi: float) -> float:
    """Baseline events as the bet counts them: one pseudo-event (``phi``) more for "up", none for "down"."""
    return n0 + phi if direction == "up" else n0


def tilt(q: float, a: float, phi: float) -> tuple[float, float, float]:
    """``(s, theta, g(s))`` of one alternative.

    Args:
        q: the alternative's rate over the null's.
        a: ``rho * u / t0``, the expected events of the watch per event of the baseline under the null; positive.
        phi: long-run Fano factor, at least 1.
    """
    growth = (q - 1.0) / (1.0 + a * q)  # q' - 1, without cancellation
    over = phi - 1.0
    if over < POISSON_BELOW:
        return math.log1p(growth), -math.log1p(-a * growth), growth
    log_growth = math.log1p(growth * over / phi)
    y = math.expm1(a * log_growth) / over
    return math.log1p(growth) - log_growth, -math.log1p(-y), log_growth / over


def coefficients(
    direction: Direction, *, rho: float, n0: float, t0: float, u: float, phi: float, slack: float = 0.0
) -> Coefficients:
    """Per alternative ``(s, c)`` such that ``ln W = s * m - c``.

    Args:
        direction: which alternatives.
        rho: ratio of the rates on the null's boundary (above 1 tolerates a rise, below 1 a fall).
        n0: baseline events, as :func:`counted_baseline` counts them.
        t0: baseline exposure, positive.
        u: watch exposure, positive.
        phi: long-run Fano factor, at least 1.
        slack: tolerated absolute change of the rate, per unit of exposure.
    """
    a = rho * u / t0
    found = []
    for q in effects(direction):
        s, theta, growth = tilt(q, a, phi)
        found.append((s, theta * n0 + abs(growth) * slack * u))  # slack makes either bet dearer
    return tuple(found)


def log_sum_exp(terms: Sequence[float]) -> float:
    """``ln(sum(exp(terms)))`` without overflow; minus infinity for no terms."""
    if not terms:
        return -math.inf
    top = max(terms)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(t - top) for t in terms if t - top > NEGLIGIBLE))


def log_mixture(weights: Coefficients, m: float) -> float:
    """Log of the mean of ``W`` over the alternatives at ``m`` events."""
    terms = [s * m - c for s, c in weights]
    top = max(terms)
    total = 0.0
    for term in terms:
        if term - top > NEGLIGIBLE:
            total += math.exp(term - top)
    return top + math.log(total / len(terms))


def log_bet(
    direction: Direction,
    *,
    rho: float,
    n0: float,
    t0: float,
    m: float,
    u: float,
    phi: float,
    slack: float = 0.0,
) -> float:
    """Log of the mixture bet, 0 before any exposure; ``n0`` is the plain baseline count."""
    if u <= 0:
        return 0.0
    counted = counted_baseline(direction, n0, phi)
    return log_mixture(coefficients(direction, rho=rho, n0=counted, t0=t0, u=u, phi=phi, slack=slack), m)


def pay_for_dispersion(log_e: float, nu: float) -> float:
    """Charge for not knowing ``phi``: ``(nu/2) ln(1 + 2 l / nu)`` instead of ``l``.

    If ``nu * phi_hat / phi`` is chi-squared with ``nu`` degrees of freedom and ``P(l >= c | phi known) <= e^-c``, then
    ``P(l >= c) <= E exp(-c phi_hat / phi) = (1 + 2c/nu)^(-nu/2)``. Exact under those two assumptions, which hold
    asymptotically.
    """
    return log_e if log_e <= 0 else 0.5 * nu * math.log1p(2.0 * log_e / nu)


def modulated(phi: float, ratio: float) -> float:
    """The Fano factor at ``ratio`` times the rate if the excess noise modulates the rate; never below ``phi``."""
    return 1.0 + (phi - 1.0) * max(1.0, ratio)


def likely_ratios(
    *, n0: float, t0: float, m: float, u: float, phi: float, nu: float, alpha: float
) -> tuple[float, float]:
    """The anytime confidence sequence of the ratio of the rates, at this moment.

    All ratios that neither one-sided bet refutes at ``alpha / 2``, found by bisection. It holds at every moment at once
    for a ratio that is constant over the watch (with ``phi`` known; asymptotically otherwise). Noise that modulates the
    rate grows with it, so each ratio is judged by the ``phi`` it would have (:func:`modulated`).

    Returns:
        Lower and upper end; 0 and infinity where nothing bounds it.
    """
    if u <= 0 or t0 <= 0:
        return 0.0, math.inf
    limit = math.log(2.0 / alpha)

    def refuted(direction: Direction, log_ratio: float) -> bool:
        rho = math.exp(log_ratio)
        log_e = log_bet(direction, rho=rho, n0=n0, t0=t0, m=m, u=u, phi=modulated(phi, rho))
        return pay_for_dispersion(log_e, nu) >= limit

    low = _edge(lambda x: refuted("up", x), upwards=False) if m > 0 else -math.inf
    high = _edge(lambda x: refuted("down", x), upwards=True) if n0 > 0 else math.inf
    return math.exp(low), math.exp(high)


FARTHEST = 16.0  # ln of the largest ratio searched, about 9 million
BISECTIONS = 36  # leaves the ends exact to 5e-10


def _edge(refuted: Callable[[float], bool], *, upwards: bool) -> float:
    """The log ratio where ``refuted`` changes; minus or plus infinity where it refutes nothing in reach."""
    inside, outside = (-FARTHEST, FARTHEST) if upwards else (FARTHEST, -FARTHEST)
    if not refuted(outside):
        return math.inf if upwards else -math.inf
    for _ in range(BISECTIONS):
        middle = 0.5 * (inside + outside)
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
