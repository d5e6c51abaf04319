"""Networks of others read from their files into ours, and ours as programs for others.

    format        theirs                    ours          read from            written by
    diffusers     UNet2DModel               UNet          a folder             write_diffusers
                  DiTTransformer2DModel     DiT           a folder             write_diffusers
    edm           SongUNet                  SongUNet      a state dictionary   to_edm
                  DhariwalUNet              DhariwalUNet  a state dictionary   to_edm
    adm           UNetModel, blocks between DhariwalUNet  a state dictionary   to_adm
                  levels and scaled norms
                  UNetModel, convolutions   UNet          a state dictionary   to_adm
                  or pooling between them
    score_sde     NCSNpp                    SongUNet      a checkpoint, a      to_score_sde
                                                          state dictionary
    BERT          BertModel                 Transformer   a folder             -
    DCGAN         torch's example           DCGAN         a state dictionary   -

Options that are taken, and what is refused because ours cannot be it:

    UNet2DModel   any levels with or without attention, channels of heads, groups, epsilon, classes,
                  scale_shift, freq_shift, flip_sin_to_cos, either padding, attention in the middle.
                  Not: Fourier features (they divide the output), resnet resampling, other blocks,
                  class embeddings of time or identity, levels that are no multiples of the first,
                  scale_shift with attention in the middle that has no norm
    DiT           all sizes and patches, both epsilons. Not: affine norms, other activations, blocks
                  whose embeddings differ
    EDM           both embeddings, encoders standard and residual, any filter, labels, augmentation.
                  Not: encoder or decoder "skip", other widths of the embedding
    ADM           legacy and new order of attention, classes, learned variances, any levels.
                  Not: blocks between levels with plain norms or fewer than 128 channels, fractional
                  channel_mult (512x512)
    NCSNpp        BigGAN blocks with scaled skips, input residual or none, with or without FIR.
                  Not: ddpm blocks, progressive output, input_skip

Files are safetensors, or torch's read by weights_only=True: pickled code, such as EDM's .pkl files,
is refused. float16 and bfloat16 are widened to float32; other dtypes are refused.
"""

from jaxdiff.interop.adm import from_adm, to_adm
from jaxdiff.interop.bert import Bert, convert, find, network, read
from jaxdiff.interop.dcgan import convert_dcgan
from jaxdiff.interop.diffusers import (
    from_diffusers,
    read_diffusers,
    to_diffusers,
    write_diffusers,
)
from jaxdiff.interop.edm import from_edm, to_edm
from jaxdiff.interop.names import Network
from jaxdiff.interop.program import Program, export_sampler, read_program, write_program
from jaxdiff.interop.score_sde import from_score_sde, to_score_sde
from jaxdiff.interop.weights import read_safetensors, read_torch, write_safetensors

__all__ = [
    "Bert",
    "Network",
    "Program",
    "convert",
    "convert_dcgan",
    "export_sampler",
    "find",
    "from_adm",
    "from_diffusers",
    "from_edm",
    "from_score_sde",
    "network",
    "read",
    "read_diffusers",
    "read_program",
    "read_safetensors",
    "read_torch",
    "to_adm",
    "to_diffusers",
    "to_edm",
    "to_score_sde",
    "write_diffusers",
    "write_program",
    "write_safetensors",
]
