"""The README's Python, word by word, in one namespace from top to bottom."""

import pathlib
import re

import jax
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_every_block_runs(tmp_path, monkeypatch):
    """Samples of the trained network have the mixture's mean: weights (.3, .7) give (-.4, .35).

    Standard error of 1000 draws is .03; the network is trained for seconds, hence .25.
    """
    monkeypatch.chdir(tmp_path)  # where blocks write their files
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names = {}
    with jax.numpy_rank_promotion("raise"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert names["some"].shape == (5, 2)
    assert names["xs"].shape == (100, 64, 2)
    assert np.isfinite(names["by_beta"])
    np.testing.assert_allclose(np.mean(names["x"], axis=0), [-0.4, 0.35], atol=0.25)
