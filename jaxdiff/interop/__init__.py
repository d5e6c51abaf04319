"""Networks that others have trained, read from their files into ours."""

from jaxdiff.interop.bert import Bert, convert, find, network, read
from jaxdiff.interop.dcgan import convert_dcgan
from jaxdiff.interop.weights import read_torch

__all__ = ["Bert", "convert", "convert_dcgan", "find", "network", "read", "read_torch"]
