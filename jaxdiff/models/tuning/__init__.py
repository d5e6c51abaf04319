"""Tuning a trained network to something else by few parameters: one frame for any network.

A method is a frozen dataclass around a network, with `init(key, *args, backbone=params)`,
`apply(variables, *args, key, train)` and `labels(variables)`: what is trained, and what is not. It
goes where a network goes: into a denoiser, a loss, a training step.

    full, head, bitfit      some of the network's own parameters
    LoRA                    low-rank changes of linear layers
    Prompts                 vectors before the tokens of a transformer
    Adapters                small perceptrons between layers
    Ladder                  a narrow network beside it: no gradient goes through the network
"""

from jaxdiff.models.tuning.adapters import Adapters
from jaxdiff.models.tuning.calls import find_blocks, find_last
from jaxdiff.models.tuning.ladder import Ladder, narrow
from jaxdiff.models.tuning.lora import LoRA
from jaxdiff.models.tuning.prompts import Prompts
from jaxdiff.models.tuning.prune import fisher, prune, transformer_plan
from jaxdiff.models.tuning.selected import Selected, bitfit, full, head

__all__ = [
    "Adapters",
    "Ladder",
    "LoRA",
    "Prompts",
    "Selected",
    "bitfit",
    "find_blocks",
    "find_last",
    "fisher",
    "full",
    "head",
    "narrow",
    "prune",
    "transformer_plan",
]
