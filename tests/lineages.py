"""The law of the number of lineages at 200 digits, for all who test against it."""

from functools import cache

import mpmath


@cache
def series(theta, tau, m):
    """q_m(tau) by its alternating series at 200 digits."""
    with mpmath.workdps(200):
        theta, tau = mpmath.mpf(theta), mpmath.mpf(tau)
        total, k = mpmath.mpf(m == 0), m + (m == 0)
        while True:
            rise = mpmath.gamma(theta + m + k - 1) / mpmath.gamma(theta + m)
            term = (theta + 2 * k - 1) * rise / mpmath.factorial(m) / mpmath.factorial(k - m)
            term *= mpmath.exp(-k * (k + theta - 1) * tau / 2)
            total += (-1) ** (k - m) * term
            if term < mpmath.mpf(10) ** -170 and k > 2 * m:
                return total
            k += 1
