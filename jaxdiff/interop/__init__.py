"""Networks of others read from their files into ours, and ours as programs for others."""

from jaxdiff.interop.bert import Bert, convert, find, network, read
from jaxdiff.interop.dcgan import convert_dcgan
from jaxdiff.interop.program import Program, export_sampler, read_program, write_program
from jaxdiff.interop.weights import read_safetensors, read_torch, write_safetensors

__all__ = [
    "Bert",
    "Program",
    "convert",
    "convert_dcgan",
    "export_sampler",
    "find",
    "network",
    "read",
    "read_program",
    "read_safetensors",
    "read_torch",
    "write_program",
    "write_safetensors",
]
