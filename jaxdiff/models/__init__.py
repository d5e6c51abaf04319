"""Networks in Flax linen: `net.apply(variables, x, t, cond, train=False)`, and a classifier.

They know arrays, not diffusion: `t` is any time feature, the output whatever it is trained to be.
"""

from jaxdiff.models.classifier import Classifier
from jaxdiff.models.dit import DiT
from jaxdiff.models.mlp import MLP
from jaxdiff.models.unet import UNet, ddpm_cifar10

__all__ = ["MLP", "Classifier", "DiT", "UNet", "ddpm_cifar10"]
