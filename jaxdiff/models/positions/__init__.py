"""How a transformer is told where its tokens are: parts that combine, each by a name.

    absolute    added to the tokens before the first layer              `ABSOLUTE`
    relative    in attention, by the displacement i - j of two tokens   `RELATIVE`

A name may be a sum: "learned+factor", "rotary+factor". "urpe" is "bias+factor".

With identical tokens a softmax of whatever relative bias gives the same output everywhere, for its
rows sum to one: none, bias, t5, xl, deberta, alibi and rotary cannot count. factor (hence urpe),
shaw, which speaks of positions in the values, and the absolute ones can.

Source: the defect and the factor: Luo et al. 2022, arXiv:2205.13401; further remedies: Su 2022,
https://kexue.fm/archives/9105.
"""

from jaxdiff.models.positions.absolute import ABSOLUTE, Learned, SinCos, Sinusoidal
from jaxdiff.models.positions.base import Position, Several
from jaxdiff.models.positions.content import XL, DeBERTa, Shaw
from jaxdiff.models.positions.rotary import Rotary
from jaxdiff.models.positions.tables import SMALL, T5, ALiBi, Bias, Factor

__all__ = [
    "ABSOLUTE",
    "NAMES",
    "RELATIVE",
    "SMALL",
    "T5",
    "XL",
    "ALiBi",
    "Bias",
    "DeBERTa",
    "Factor",
    "Learned",
    "Position",
    "Rotary",
    "Several",
    "Shaw",
    "SinCos",
    "Sinusoidal",
    "absolute",
    "relative",
    "split",
]

RELATIVE: dict[str, type[Position]] = {
    "bias": Bias,
    "t5": T5,
    "shaw": Shaw,
    "xl": XL,
    "deberta": DeBERTa,
    "alibi": ALiBi,
    "rotary": Rotary,
    "factor": Factor,
}
"""Parts of attention by name; "urpe" stands for "bias+factor"."""

NAMES = ("none", *ABSOLUTE, *RELATIVE, "urpe")
"""What a position method may be called, alone or joined by "+"."""


def split(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The absolute part of a name, and the relative ones.

    Raises:
        ValueError: an unknown name, a part twice, or two absolute ones.
    """
    parts = [part for part in name.replace("urpe", "bias+factor").split("+") if part != "none"]
    unknown = [part for part in parts if part not in ABSOLUTE and part not in RELATIVE]
    if unknown or len(set(parts)) < len(parts):
        raise ValueError(f"positions must be of {', '.join(NAMES)}, joined by +, got {name!r}")
    first = [part for part in parts if part in ABSOLUTE]
    if len(first) > 1:
        raise ValueError(f"positions can have one absolute part, got {name!r}")
    return (first[0] if first else None), tuple(p for p in parts if p in RELATIVE)


def absolute(name: str, span: tuple[int, ...], module: str | None = None) -> Learned | None:
    """The absolute part of a position method as a module, None where it has none.

    Args:
        name: such as "learned" or "learned+urpe".
        span: as many tokens as there may be, along each axis.
        module: the name of its parameters.
    """
    first = split(name)[0]
    return None if first is None else ABSOLUTE[first](span=span, name=module)


def relative(
    name: str,
    *,
    heads: int,
    dim: int,
    value_dim: int | None = None,
    span: tuple[int, ...],
    shape: tuple[int, ...] | None = None,
    causal: bool = False,
    module: str | None = None,
) -> Position | None:
    """The relative parts of a position method as one module, None where it has none.

    Args:
        name: such as "t5" or "rotary+factor".
        heads: of the attention.
        dim: the length of a head's queries and keys.
        value_dim: that of its values, `dim` unless given.
        span: the largest displacement that is told from the next, along each axis; larger ones
            count as it.
        shape: the grid of tokens, such as (rows, columns); None for a sequence of any length.
        causal: whether tokens see only themselves and what is before them.
        module: the name of its parameters.
    """
    parts = split(name)[1]
    if not parts:
        return None
    how = {"heads": heads, "dim": dim, "value_dim": value_dim, "span": span}
    how |= {"shape": shape, "causal": causal}
    if len(parts) == 1:
        return RELATIVE[parts[0]](**how, name=module)
    made = tuple(RELATIVE[part](**how, parent=None, name=part) for part in parts)
    return Several(**how, parts=made, name=module)
