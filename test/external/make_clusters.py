"""Makes test/surgery/planning/golden/clusters.json with numpy and scipy.

usage: python test/external/make_clusters.py

`kmeans`: spherical k-means in float64, from given points as first centroids: assign by the largest cosine, average,
scale to length 1, until no point changes. `balanced`: costs of points and clusters of equal size, and the smallest sum
that scipy.optimize.linear_sum_assignment finds when every cluster's column stands there once for each of its places.
`split`: the shared expert and the first centres of CMoE (JarvisPei/CMoE) for given activations, and the smallest sum of
distances to them.
"""

import json
import pathlib

import numpy
from scipy.optimize import linear_sum_assignment


def spherical_kmeans(points, first):
    x = points / numpy.linalg.norm(points, axis=1, keepdims=True)
    centroids = x[first]
    members = None
    while True:
        cosines = x @ centroids.T
        new = cosines.argmax(axis=1)
        if members is not None and (new == members).all():
            return centroids, members, cosines.max(axis=1).mean()
        members = new
        sums = numpy.stack([x[members == k].sum(axis=0) for k in range(len(first))])
        centroids = sums / numpy.linalg.norm(sums, axis=1, keepdims=True)


def kmeans_case(generator, count, width, clusters, spread):
    centers = generator.normal(size=(clusters, width))
    points = centers[generator.integers(clusters, size=count)] + spread * generator.normal(size=(count, width))
    # float32 points and a length that varies: only directions may count.
    points = (points * generator.uniform(0.1, 10, size=(count, 1))).astype(numpy.float32)
    first = generator.permutation(count)[:clusters].tolist()
    centroids, members, cosine = spherical_kmeans(points.astype(numpy.float64), first)
    return {
        "width": width,
        "points": points.ravel().tolist(),
        "first": first,
        "centroids": centroids.ravel().tolist(),
        "members": members.tolist(),
        "cosine": cosine,
    }


def balanced_case(generator, count, clusters):
    costs = generator.integers(0, 1000, size=(count, clusters))
    places = count // clusters
    repeated = numpy.repeat(costs, places, axis=1)
    rows, columns = linear_sum_assignment(repeated)
    return {"clusters": clusters, "costs": costs.ravel().tolist(), "sum": int(repeated[rows, columns].sum())}


def split_case(generator, tokens, units, shared, clusters, active=10):
    # Units that are active together, some of them for most tokens.
    kinds = generator.integers(5, size=tokens)
    likes = generator.normal(size=(5, units)) + 2 * (generator.random(units) < 0.2)
    activations = (likes[kinds] * generator.normal(size=(tokens, units))).astype(numpy.float32)
    markers = numpy.zeros((tokens, units), dtype=int)
    top = numpy.argsort(-numpy.abs(activations), axis=1)[:, :active]
    numpy.put_along_axis(markers, top, 1, axis=1)
    counts = markers.sum(axis=0)
    order = numpy.argsort(-counts, kind="stable")
    routed = numpy.sort(order[shared:])
    centres = order[shared : shared + clusters]
    distances = numpy.abs(markers[:, routed].T[:, None] - markers[:, centres].T[None]).sum(axis=2)
    repeated = numpy.repeat(distances, len(routed) // clusters, axis=1)
    rows, columns = linear_sum_assignment(repeated)
    return {
        "units": units,
        "shared": shared,
        "clusters": clusters,
        "activations": activations.ravel().tolist(),
        "sharedUnits": numpy.sort(order[:shared]).tolist(),
        "centres": centres.tolist(),
        "sum": int(repeated[rows, columns].sum()),
    }


def main():
    generator = numpy.random.default_rng(20260414)
    cases = {
        "kmeans": [kmeans_case(generator, 60, 5, 4, 0.3), kmeans_case(generator, 48, 7, 6, 2.0)],
        "balanced": [balanced_case(generator, 24, 4), balanced_case(generator, 60, 5), balanced_case(generator, 36, 12)],
        "split": [split_case(generator, 37, 24, 6, 3), split_case(generator, 70, 40, 0, 5)],
    }
    path = pathlib.Path(__file__).parent.parent / "surgery/planning/golden/clusters.json"
    path.write_text(json.dumps(cases) + "\n")


main()
