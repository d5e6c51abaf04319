"""Guidance: wrappers denoise -> denoise, so that everything stacks and no sampler knows of it.

    guided = clip_x0(cfg(denoiser.with_cond(labels), limited(3.0, 0.2, 5.0)))
    x_0 = sample(key, guided, grid, shape)

`cfg` and `autoguidance` blend two models, `classifier` adds a gradient to the score, and `dps`,
`pigdm` and `mmps` sample given a measurement y = A(x_0) + noise (`measurement` has such A).
"""

from jaxdiff.guidance import measurement
from jaxdiff.guidance.blend import autoguidance, cfg
from jaxdiff.guidance.classifier import Classifier, classifier, make_classifier
from jaxdiff.guidance.posterior import dps, dps_normalised, mmps, pigdm
from jaxdiff.guidance.scale import Limited, limited

__all__ = [
    "Classifier",
    "Limited",
    "autoguidance",
    "cfg",
    "classifier",
    "dps",
    "dps_normalised",
    "limited",
    "make_classifier",
    "measurement",
    "mmps",
    "pigdm",
]
