"""Exported samplers draw what `sample` draws, to the bit, in a process that has plain JAX alone.

Truth: `sample` itself, compiled here; files damaged on purpose.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import interop
from jaxdiff.samplers import example_keys, sample

pytest.importorskip("flatbuffers", reason="needs the extra export")

NET = jd.models.MLP(width=16, depth=1, num_classes=3)
PLAIN = jd.models.MLP(width=16, depth=1)
SCHEDULE = jd.schedules.cosine()
GRID = jd.grids.uniform(SCHEDULE, 4)
SAMPLER = jd.samplers.ddim(1.0)


def denoise_of(weights, label, scale):
    net = PLAIN if label is None else NET
    how = {"parametrization": "v", "time_feature": "log_snr", "cond": label}
    model = jd.make_denoiser(net.apply, weights, **how)
    return model if scale is None else jd.guidance.cfg(model, scale)


@functools.cache
def weights(seed, net=NET):
    with jax.ensure_compile_time_eval():
        label = (jnp.zeros(1, int),) if net is NET else ()
        start = net.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1), *label)
        shaken = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(start)))
        fill = lambda a, k: 0.5 * jax.random.normal(k, a.shape)  # noqa: E731
        return jax.tree.map(fill, start, jax.tree.unflatten(jax.tree.structure(start), shaken))


def make(**how):
    how = {"labelled": True, "guided": True, **how}
    own = weights(1, NET if how["labelled"] else PLAIN)
    return interop.export_sampler(denoise_of, own, GRID, (2,), sampler=SAMPLER, **how)


def direct(key, index, label, scale, seed=1):
    keys = example_keys(key, len(index), index[0])
    model = denoise_of(weights(seed), jnp.asarray(label), scale)
    return sample(keys, model, GRID, (len(index), 2), sampler=SAMPLER)


@pytest.fixture(scope="module")
def program():
    return make(platforms=("cpu", "tpu", "cuda"))


@pytest.mark.parametrize(("first", "count", "scale"), [(0, 5, 1.5), (3, 2, 0.0)])
def test_draws_what_sample_draws(program, key, first, count, scale):
    index, label = np.arange(first, first + count), np.arange(count) % 3
    ours = program(key, index, label=label, guidance=scale)
    np.testing.assert_array_equal(ours, direct(key, index, label, jnp.float32(scale)))


def test_one_compile_for_one_shape(program, key):
    for seed in range(3):
        inputs = {"label": np.zeros(2, int), "guidance": float(seed)}
        program(jax.random.fold_in(key, seed), np.arange(seed, seed + 2), **inputs)
    before = program._jitted._cache_size()
    program(key, np.arange(2), label=np.ones(2, int), guidance=0.5)
    assert program._jitted._cache_size() == before


def test_fixed_batch_without_inputs(key):
    closed = make(batch=3, labelled=False, guided=False)
    assert closed.about["inputs"] == ["key", "index"]
    plain = sample(key, denoise_of(weights(1, PLAIN), None, None), GRID, (3, 2), sampler=SAMPLER)
    np.testing.assert_array_equal(closed(key, np.arange(3)), plain)
    with pytest.raises(ValueError, match=r"index must have shape \[3\], got \[2\]"):
        closed(key, np.arange(2))


def test_decoded(key):
    twice = make(decode=lambda weights, x: jnp.concatenate([x, x], 1), labelled=False, guided=False)
    assert twice.about["shape"] == [4]
    x = twice(key, np.arange(2))
    np.testing.assert_array_equal(x[:, :2], x[:, 2:])


ALONE = """
import sys, jax, numpy as np
with np.load(sys.argv[1]) as file:
    program = jax.export.deserialize(bytearray(file["program"].tobytes()))
    weights = {name[8:]: file[name] for name in file.files if name.startswith("weights/")}
inputs = {"index": np.arange(5, dtype=np.int32), "label": np.arange(5, dtype=np.int32) % 3}
x = jax.jit(program.call)(weights, key=jax.random.PRNGKey(0), guidance=np.float32(1.5), **inputs)
assert "jaxdiff" not in sys.modules
np.save(sys.argv[2], x)
"""


def test_plain_jax_draws_the_same_bits(program, key, tmp_path):
    (path,) = interop.write_program(tmp_path / "p.npz", program)
    subprocess.run([sys.executable, "-c", ALONE, path, tmp_path / "x.npy"], check=True)
    wanted = direct(key, np.arange(5), np.arange(5) % 3, jnp.float32(1.5))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), wanted)


def test_weights_beside_can_be_others(program, key, tmp_path):
    pytest.importorskip("safetensors")
    first, second = interop.write_program(tmp_path / "p.npz", program, beside=True)
    assert second.name == "p.safetensors"
    with np.load(first) as file:
        assert not [name for name in file.files if name.startswith("weights/")]
    inputs = {"index": np.arange(2), "label": np.zeros(2, int), "guidance": 1.0}
    own = interop.read_program(first)(key, **inputs)
    np.testing.assert_array_equal(own, program(key, **inputs))
    names = list(program.weights)
    others = dict(zip(names, jax.tree.leaves(weights(2)), strict=True))
    interop.write_safetensors(tmp_path / "o.safetensors", others)
    swapped = interop.read_program(first, weights=tmp_path / "o.safetensors")(key, **inputs)
    wanted = direct(key, np.arange(2), np.zeros(2, int), jnp.float32(1.0), seed=2)
    np.testing.assert_array_equal(swapped, wanted)

    lacking = {name: others[name] for name in names[1:]} | {"more": np.zeros(2, np.float32)}
    wide = {**others, names[0]: np.asarray(others[names[0]], np.float64)}
    for bad, words in ((lacking, [names[0], "not in it", "more"]), (wide, ["float64", "float32"])):
        interop.write_safetensors(tmp_path / "bad.safetensors", bad)
        with pytest.raises(ValueError, match="has other weights") as caught:
            interop.read_program(first, weights=tmp_path / "bad.safetensors")
        assert all(word in str(caught.value) for word in words)


def test_damage_is_found(program, tmp_path):
    (path,) = interop.write_program(tmp_path / "p.npz", program)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"p\.npz"):
            interop.read_program(path)
    for place in np.linspace(200, len(whole) - 2000, 9).astype(int):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"p\.npz"):
            interop.read_program(path)
    np.savez(path, about=np.array([{"a": 1}], object))  # pickled
    with pytest.raises(ValueError, match=r"p\.npz"):
        interop.read_program(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="holds no program"):
        interop.read_program(path)
    with pytest.raises(FileNotFoundError):
        interop.read_program(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        interop.write_program(tmp_path / "p.bin", program)


def test_refuses(program, key):
    for platforms in ((), ("cpu", "abacus")):
        with pytest.raises(ValueError, match="platforms must be of cpu, cuda, rocm, tpu"):
            make(platforms=platforms)
    for batch in (0, 2.5):
        with pytest.raises(ValueError, match="batch must be a whole number"):
            make(batch=batch)
    inputs = {"index": np.arange(2), "label": np.zeros(2, int), "guidance": 1.0}
    for change, words in (
        ({"label": None}, "takes key, index, label, guidance"),
        ({"scale": 1.0}, "got key, index, label, guidance, scale"),
        ({"label": np.zeros(3, int)}, "label must have the shape of index"),
        ({"guidance": np.ones(2)}, "guidance must be a number"),
        ({"index": np.zeros((2, 2), int)}, r"index must have shape \[B\]"),
        ({"index": np.zeros(0, int)}, r"index must have shape \[B\]"),
    ):
        given = {k: v for k, v in {**inputs, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=words):
            program(key, **given)
    elsewhere = make(platforms=("tpu",))
    with pytest.raises(ValueError, match="the program is for tpu, this is cpu"):
        elsewhere(key, **inputs)
