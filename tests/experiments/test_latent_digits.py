"""The experiment of latents runs in its shortest form. Truth: the files that it says it leaves."""

import pytest


@pytest.mark.slow
def test_quick(tmp_path):
    import latent_digits

    rows = latent_digits.main(tmp_path, quick=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latent_digits.csv",
        "latent_digits.png",
    ]
    kinds = dict.fromkeys(row.kind for row in rows)
    assert list(kinds) == ["decoded", "latents", "patches of 2", "pixels", "training"]
    # the training images beside themselves: no distance can be told from theirs
    frechet = {row.kind: row.value for row in rows if "rechet" in row.metric}
    assert frechet["training"] < frechet["latents"]
