"""Networks in Flax linen: `net.apply(variables, x, t, cond, train=False)`, and a classifier.

They know arrays, not diffusion: `t` is any time feature, the output whatever it is trained to be.
`WithHeads` gives a network further outputs.
"""

from jaxdiff.models.classifier import Classifier
from jaxdiff.models.dhariwal import DhariwalUNet, adm_imagenet64
from jaxdiff.models.dit import DiT
from jaxdiff.models.heads import WithHeads
from jaxdiff.models.mlp import MLP
from jaxdiff.models.song import SongUNet, ddpmpp_cifar10, ncsnpp_cifar10
from jaxdiff.models.su import SuA, SuB
from jaxdiff.models.unet import UNet, ddpm_cifar10

__all__ = [
    "MLP",
    "Classifier",
    "DhariwalUNet",
    "DiT",
    "SongUNet",
    "SuA",
    "SuB",
    "UNet",
    "WithHeads",
    "adm_imagenet64",
    "ddpm_cifar10",
    "ddpmpp_cifar10",
    "ncsnpp_cifar10",
]
