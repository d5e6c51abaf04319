"""Methods of tuning in a training step: what moves, what the optimiser holds, the memory it takes.

Truth: parameters compared bit for bit; numbers of trained parameters; what XLA says it allocates.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, schedules, training
from jaxdiff.denoiser import make_denoiser
from jaxdiff.models import DiT, tuning
from jaxdiff.training import optim
from tests.models.tuning.networks import METHODS, NETWORKS, QUICK, X, count, ladder, trained

SCHEDULE = schedules.cosine()


def loss_of(method):
    denoiser = make_denoiser(method.apply, None, parametrization="v", time_feature="thousandths")
    return training.loss_of(losses.denoising, denoiser, SCHEDULE)


def begun(method, optimizer, args, key):
    """The state before the first step, and the step."""
    params = trained(method.backbone, args)
    variables = jax.jit(lambda: method.init(key, *args, backbone=params), compiler_options=QUICK)()
    labels = method.labels(variables)
    only = optim.only_trained(optimizer, labels)
    hyper = {"lr": 0.1, "ema_decay": 0.9}
    state = training.init_state(key, variables, only, hyper=hyper)
    return state, training.make_train_step(loss_of(method), only), labels


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in METHODS if m != "prompts"])
def test_a_step_moves_what_is_trained_and_no_other(method, key):
    net, args = NETWORKS["mlp"]
    method = METHODS[method](net, args)
    optimizer = training.adam(weight_decay=0.1)
    state, step, labels = begun(method, optimizer, args, key)
    batch = {"x": jnp.asarray(X[:, :, 0, 0])}
    after = state
    step = jax.jit(step, compiler_options=QUICK)
    for _ in range(4):  # what multiplies a layer that starts as zero has no gradient at first
        after, metrics = step(after, batch)
    assert jnp.isfinite(metrics["loss"])
    held = 0
    for old, new, average, label in zip(
        *(jax.tree.leaves(tree) for tree in (state.params, after.params, after.ema, labels)),
        strict=True,
    ):
        if label == "frozen":
            held += 1
            assert old.tobytes() == new.tobytes() == average.tobytes()
        else:
            assert not np.array_equal(old, new)
            assert not np.array_equal(old, average)
    leaves = jax.tree.leaves(after.opt_state)
    moments = sum(leaf.size for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))
    assert moments == 2 * count(state.params, labels)
    assert (held == 0) == (method == tuning.full(net))


def test_labels_that_are_none_are_named():
    for labels in ({"a": "train"}, {"a": "frozen"}):
        with pytest.raises(ValueError, match="labels must be trained, some of them, or frozen"):
            optim.only_trained(training.adam(), labels).init({"a": jnp.ones(2)})


def memory(method, args):
    """Bytes XLA allocates for the temporaries of a gradient step."""
    variables = jax.eval_shape(lambda: method.init(jax.random.key(0), *args))
    only = optim.only_trained(training.adam(), method.labels(variables))
    state = jax.eval_shape(
        lambda: training.init_state(
            jax.random.key(0),
            method.init(jax.random.key(0), *args),
            only,
            hyper={"lr": 0.1, "ema_decay": 0.9},
        )
    )
    step = training.make_train_step(loss_of(method), only)
    lowered = jax.jit(step, donate_argnums=0).lower(state, {"x": args[0]})
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_a_ladder_keeps_few_activations():
    """Expected of 6 layers and ratio 8: under half of LoRA's and adapters', a third of all.

    Of one head: the scores of as many heads as the network has are as large as its own. Sung et al.
    2022 save 69 % of full tuning's memory, other methods at most 26 %.
    """
    net = DiT(width=128, depth=6, heads=4)
    args = (np.zeros((32, 16, 16, 1), np.float32), np.zeros((32,), np.float32))
    methods = {"full": tuning.full(net), "lora": tuning.LoRA(net), "adapters": tuning.Adapters(net)}
    methods["ladder"] = ladder(net, args, side=tuning.narrow(net, 8).clone(heads=1))
    bytes_of = {name: memory(method, args) for name, method in methods.items()}
    assert bytes_of["ladder"] < 0.5 * bytes_of["lora"]
    assert bytes_of["ladder"] < 0.5 * bytes_of["adapters"]
    assert bytes_of["ladder"] < bytes_of["full"] / 3
