"""The same fits with scipy, for bench/laws.mjs: points as JSON on stdin, times as JSON on stdout. One thread, analytic gradients."""
import itertools
import json
import sys
import time

import numpy as np
import scipy
from scipy.optimize import minimize, nnls

given = json.load(sys.stdin)
log_n, log_d, loss = np.log(given["N"]), np.log(given["D"]), np.array(given["loss"])
log_loss, delta = np.log(loss), given["delta"]


def objective(theta, weights, scale):
    """Sum of Huber's loss of ln-residuals times scale, and its gradient, in (a, b, e, alpha, beta)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    top = terms.max(0)
    parts = np.exp(terms - top)
    total = parts.sum(0)
    r = top + np.log(total) - log_loss
    share = parts / total
    small = np.abs(r) <= delta
    value = np.where(small, 0.5 * r * r, delta * (np.abs(r) - 0.5 * delta))
    slope = weights * np.where(small, r, delta * np.sign(r)) * scale
    gradient = np.array([
        (slope * share[0]).sum(), (slope * share[1]).sum(), (slope * share[2]).sum(),
        -(slope * share[0] * log_n).sum(), -(slope * share[1] * log_d).sum(),
    ])
    return scale * (weights * value).sum(), gradient


ones = np.ones_like(loss)


def projection():
    """10 x 10 grid over the exponents with nonnegative least squares, then Nelder-Mead on the exponents, then BFGS."""
    def inner(exponents):
        matrix = np.stack([np.exp(-exponents[0] * log_n), np.exp(-exponents[1] * log_d), np.ones_like(log_n)], 1)
        scale = matrix.max(0)
        x, norm = nnls(matrix / scale, loss)
        return norm, x / scale
    grid = np.linspace(0.05, 0.95, 10)
    best = min(itertools.product(grid, grid), key=lambda pair: inner(pair)[0])
    found = minimize(lambda pair: inner(pair)[0], best, method="Nelder-Mead", options={"maxiter": 200})
    x = np.maximum(inner(found.x)[1], 1e-12)
    start = np.array([np.log(x[0]), np.log(x[1]), np.log(x[2]), *found.x])
    return minimize(objective, start, args=(ones, 1 / delta), jac=True, method="BFGS", options={"gtol": 1e-9})


projection()
times = []
for _ in range(5):
    began = time.perf_counter()
    fitted = projection()
    times.append(time.perf_counter() - began)

starts = list(itertools.product([0, 5, 10, 15, 20, 25], [0, 5, 10, 15, 20, 25], [-1, -0.5, 0, 0.5, 1], [0, 0.5, 1, 1.5, 2], [0, 0.5, 1, 1.5, 2]))
some = starts[::30]
began = time.perf_counter()
ends = [minimize(objective, np.array(start, float), args=(ones, 1 / delta), jac=True, method="L-BFGS-B").fun * delta for start in some]
grid_seconds = (time.perf_counter() - began) * len(starts) / len(some)
best = min(min(ends), fitted.fun * delta)

generator = np.random.default_rng(0)
hoffmann = np.array([np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28])
draws = 60
began = time.perf_counter()
for _ in range(draws):
    weights = np.bincount(generator.integers(0, len(loss), len(loss)), minlength=len(loss)).astype(float)
    minimize(objective, hoffmann, args=(weights, 1 / delta), jac=True, method="BFGS")
bootstrap_seconds = (time.perf_counter() - began) * 4000 / draws

reached = sum(end <= best * (1 + 1e-8) for end in ends) / len(ends)
print(json.dumps({
    "version": scipy.__version__,
    "projection": {"seconds": sorted(times)[2], "objective": fitted.fun * delta, "note": "measured"},
    "grid": {"seconds": grid_seconds, "share": reached, "note": f"1 thread, from {len(some)} starts, {100 * reached:.0f} % reach the optimum"},
    "bootstrap": {"seconds": bootstrap_seconds, "note": f"1 thread, from {draws} draws"},
}))
