"""How fast are counts of neighbours? Ours, scikit-learn's brute force, and the product alone.

    python experiments/bench_hubness.py [--n 50000] [--dim 128] [--rounds 3] [--quick]

N_5 of n Gaussian points among themselves, the same cores for all, in turn; then ours against
references of n/4, n/2 and n points, which should take time in proportion. The limit is the matrix
product of all pairs in float32, which any exact method by products must do. Memory is XLA's own
estimate for our program beside all distances.

The goal on 2 cores at n = 50,000, d = 128: minutes at most, no slower than scikit-learn. Found:
7.6 s, .60 of scikit-learn's 12.5; in a second run 8.8 s, .95 of the product in blocks of 5,000
rows, which at the rate of large square products here would take 3.9 s.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from sklearn.neighbors import NearestNeighbors
from timing import interleaved, spread, table

from jaxdiff import hubness
from jaxdiff.hubness import neighbours

__all__ = ["main"]


def main(n: int = 50_000, dim: int = 128, rounds: int = 3, quick: bool = False) -> None:
    """Prints the tables.

    Args:
        n: points.
        dim: their length.
        rounds: calls of each that are timed.
        quick: few points.
    """
    if quick:
        n, dim, rounds = 400, 16, 1
    console = Console(width=110)
    x = jax.random.normal(jax.random.key(0), (n, dim))
    host = np.asarray(x)
    rows = max(1, neighbours._BLOCK // n)

    def theirs() -> np.ndarray:
        index = NearestNeighbors(n_neighbors=5, algorithm="brute", n_jobs=-1).fit(host).kneighbors()
        return np.bincount(index[1].ravel(), minlength=n)

    wide = min(n, 5000)  # smaller blocks take longer
    part = jax.jit(lambda own, x: jnp.max(own @ x.T, axis=-1))

    def product() -> list[jax.Array]:
        return [part(x[first : first + wide], x) for first in range(0, n, wide)]

    runs = {
        "ours": lambda: hubness.k_occurrence(x, k=5),
        "scikit-learn": theirs,
        "the product alone": product,
    }
    same = np.mean(np.asarray(runs["ours"]()) == theirs())
    taken = interleaved(runs, rounds)
    lines = [
        [name, f"{np.median(seconds):.2f}", *spread(seconds, taken["the product alone"])]
        for name, seconds in taken.items()
    ]
    title = f"N_5 of {n:,} points of length {dim}; ours equal to theirs for {same:.4%}"
    console.print(table(title, ["", "seconds", "of the product's", "quartiles"], lines))
    parts = (4, 2, 1)
    grown = interleaved(
        {f"{n // p:,}": lambda p=p: hubness.k_occurrence(x, x[: n // p], k=5) for p in parts},
        rounds,
    )
    last = grown[f"{n:,}"]
    lines = [[name, f"{np.median(s):.2f}", *spread(s, last)] for name, s in grown.items()]
    console.print(table("by the size of the reference", ["points", "seconds", "ratio", ""], lines))
    scalar, key = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    how = {"k": 5, "metric": "euclidean", "rows": rows, "among": True, "counts": True}
    lowered = neighbours._one_device.lower(x, x, key, scalar, scalar, **how)
    held = lowered.compile().memory_analysis().temp_size_in_bytes
    console.print(f"memory: {held / 1e6:,.0f} MB, all distances {4e-6 * n * n:,.0f} MB")


if __name__ == "__main__":
    tyro.cli(main)
