"""Small networks under guidance: a row of ROWS for each method, all of one form.

`ROWS[name](batch, scale)` is a denoise of [batch, 3]. Networks are bounded and smooth, with
parameters of numpy's own draws, so that they are the same in float32 and float64.
"""

import jax.numpy as jnp
import numpy as np

from jaxdiff import clip_x0, dynamic_threshold, guidance, make_denoiser
from jaxdiff.guidance import measurement

DIM, CLASSES = 3, 4
A = np.random.default_rng(1).normal(size=(2, DIM))


def _params(seed, outputs):
    rng = np.random.default_rng(seed)
    shapes = {"in": (DIM, 8), "time": (1, 8), "label": (CLASSES + 1, 8), "out": (8, outputs)}
    return {name: jnp.asarray(rng.normal(size=s) / 2, float) for name, s in shapes.items()}


def network(params, x, feature, cond=None):
    h = x @ params["in"] + feature[:, None] * params["time"]
    if cond is not None:
        h = h + params["label"][cond]  # -1, the null label, is the last row
    return jnp.tanh(jnp.tanh(h) @ params["out"])


def labels(batch):
    return jnp.arange(batch, dtype=jnp.int32) % CLASSES


def model(batch=None, seed=0):
    """A denoiser of a bounded x_0, under labels if a batch is given."""
    cond = None if batch is None else labels(batch)
    options = {"parametrization": "x0", "time_feature": "quarter_log_sigma"}
    return make_denoiser(network, _params(seed, DIM), cond=cond, **options)


def reader():
    return guidance.make_classifier(network, _params(2, CLASSES), CLASSES)


def _measured(method, **options):
    def build(batch, scale):
        y = jnp.asarray(np.random.default_rng(3).normal(size=(64, 2))[:batch], float)
        operator = measurement.matrix(jnp.asarray(A, float))
        return method(model(batch), y, operator, 0.5, scale=scale, **options)

    return build


def squares(x):
    """A measurement that is not linear."""
    return x[:, :2] ** 2


def _normalised(batch, scale):
    y = jnp.asarray(np.random.default_rng(3).normal(size=(64, 2))[:batch], float)
    return guidance.dps_normalised(model(batch), y, squares, zeta=scale)


def _stacked(batch, scale):
    """Everything at once, inside out."""
    d = guidance.cfg(model(batch), guidance.limited(scale, 0.1, 10.0), rescale=0.3)
    d = guidance.classifier(clip_x0(d, -2.0, 2.0), reader(), labels(batch), scale)
    y = jnp.full((batch, DIM), 0.25)
    d = guidance.pigdm(d, y, measurement.mask(jnp.asarray([1, 0, 1])), 0.5, iterations=2)
    return dynamic_threshold(guidance.autoguidance(d, model(batch, seed=5), scale), 0.9)


ROWS = {
    "cfg": lambda batch, scale: guidance.cfg(model(batch), scale),
    "rescaled": lambda batch, scale: guidance.cfg(model(batch), scale, rescale=0.7),
    "limited": lambda batch, scale: guidance.cfg(
        model(batch), guidance.limited(scale, 0.3, jnp.inf)
    ),
    "autoguidance": lambda batch, scale: guidance.autoguidance(
        model(batch), model(batch, seed=5), scale
    ),
    "classifier": lambda batch, scale: guidance.classifier(
        model(batch), reader(), labels(batch), scale
    ),
    "dps": _measured(guidance.dps),
    "dps_normalised": _normalised,
    "pigdm": _measured(guidance.pigdm, iterations=2),
    "mmps": _measured(guidance.mmps, iterations=2),
    "stacked": _stacked,
}
