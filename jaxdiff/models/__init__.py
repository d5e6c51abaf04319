"""Networks in Flax linen: `net.apply(variables, x, t, cond, train=False)`, and a classifier.

They know arrays, not diffusion: `t` is any time feature, the output whatever it is trained to be.
`WithHeads` gives a network further outputs, `tuning` trains a trained one by few parameters.
`Transformer` is of tokens: `net.apply(variables, tokens, mask)`; `attention` and `positions` are
what it and `DiT` are made of.
"""

from jaxdiff.models import positions
from jaxdiff.models.attention import Attention
from jaxdiff.models.autoencoder import Autoencoder
from jaxdiff.models.classifier import Classifier
from jaxdiff.models.dhariwal import DhariwalUNet, adm_imagenet64
from jaxdiff.models.dit import DiT, dit_of_size
from jaxdiff.models.gau import GAU
from jaxdiff.models.heads import WithHeads
from jaxdiff.models.mlp import MLP
from jaxdiff.models.sentence import SentenceClassifier
from jaxdiff.models.song import SongUNet, ddpmpp_cifar10, ncsnpp_cifar10
from jaxdiff.models.su import SuA, SuB
from jaxdiff.models.transformer import EncoderDecoder, Transformer
from jaxdiff.models.unet import UNet, ddpm_cifar10

__all__ = [
    "GAU",
    "MLP",
    "Attention",
    "Autoencoder",
    "Classifier",
    "DhariwalUNet",
    "DiT",
    "EncoderDecoder",
    "SentenceClassifier",
    "SongUNet",
    "SuA",
    "SuB",
    "Transformer",
    "UNet",
    "WithHeads",
    "adm_imagenet64",
    "ddpm_cifar10",
    "ddpmpp_cifar10",
    "dit_of_size",
    "ncsnpp_cifar10",
    "positions",
]
