"""Codecs: what makes an update small. One file a family, one row here.

A codec is written as text: a preset's name, a whole codec of `CODECS`, or stages of `STAGES` joined by ``+``; an
argument follows after ``:``.

>>> parse_codec("topk:0.01+q8+deflate").name
'topk:0.01+q8+deflate'
>>> parse_codec("small").name
'q4+deflate'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fl_mobile.codecs.base import Codec, Flat, Stage, codec_id, coded_tensors
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.chain import chain
from fl_mobile.codecs.ecsq import Ecsq, parse_ecsq
from fl_mobile.codecs.eden import Eden
from fl_mobile.codecs.entropy import Deflate
from fl_mobile.codecs.linear import parse_linear
from fl_mobile.codecs.powersgd import PowerSgd
from fl_mobile.codecs.prune import SampledTopK, Threshold, TopK
from fl_mobile.codecs.qsgd import Qsgd
from fl_mobile.codecs.quantize import RAW, Float16, Uniform
from fl_mobile.codecs.signs import Sign, TernGrad
from fl_mobile.codecs.sketch import parse_sketch
from fl_mobile.errors import ConfigError, nearest
from fl_mobile.table import Table, is_own, load, source_sha256

__all__ = [
    "CODECS",
    "PRESETS",
    "STAGES",
    "Codec",
    "CodecRow",
    "Reader",
    "StageRow",
    "admit_codec",
    "chain",
    "codec_id",
    "coded_tensors",
    "contracting",
    "is_sparse",
    "own_parts",
    "parse_codec",
    "part_names",
    "split_part",
]


@dataclass(frozen=True)
class CodecRow:
    """One row of `CODECS`: a codec that is not a chain of stages.

    Attributes:
        build: Argument text (or None) → codec.
        example: Text that names a valid instance; the law suites run it.
        summary: One line for ``fl-mobile codecs``.
        sparse: Whether most coordinates of a decoded update are zero.
    """

    build: Callable[[str | None], Codec]
    example: str
    summary: str
    sparse: bool = False


@dataclass(frozen=True)
class StageRow:
    """One row of `STAGES`.

    Attributes:
        build: Argument text (or None) → stage.
        example: Text that names a valid instance; the law suites run it.
        summary: One line for ``fl-mobile codecs``.
        sparse: Whether most coordinates of a decoded update are zero.
    """

    build: Callable[[str | None], Stage]
    example: str
    summary: str
    sparse: bool = False


def _uniform(bits: int) -> Callable[[str | None], Stage]:
    def build(argument: str | None) -> Stage:
        if argument not in (None, "stochastic", "nearest"):
            raise ConfigError(f"q{bits} takes ':stochastic' (default) or ':nearest', got ':{argument}'")
        return Uniform(bits, argument or "stochastic")  # type: ignore[arg-type]

    return build


def _number(what: str, argument: str | None, example: str = "0.01") -> float:
    try:
        return float(argument or "")
    except ValueError:
        raise ConfigError(f"{what} needs a number, got '{argument or ''}'; write it as {what}:{example}") from None


def _whole(what: str, argument: str | None, example: str) -> int:
    if argument is None or not argument.isascii() or not argument.isdigit():
        raise ConfigError(f"{what} needs a whole number, got '{argument or ''}'; write it as {what}:{example}")
    return int(argument)


def _plain(stage: Stage) -> Callable[[str | None], Stage]:
    def build(argument: str | None) -> Stage:
        if argument is not None:
            raise ConfigError(f"codec stage '{stage.name}' takes no argument, got ':{argument}'")
        return stage

    return build


STAGES: Table[StageRow] = Table(
    "stage",
    StageRow,
    {
        "none": StageRow(_plain(RAW), "none", "raw float32"),
        "float16": StageRow(_plain(Float16()), "float16", "IEEE half precision"),
        **{
            f"q{bits}": StageRow(
                _uniform(bits), f"q{bits}", f"uniform {bits}-bit grid, stochastic (unbiased) or :nearest"
            )
            for bits in range(8, 0, -1)
        },
        "eden": StageRow(lambda a: Eden(_number("eden", a, "1")), "eden:1", "rotate, then 1–4 or <1 bits, unbiased"),
        "qsgd": StageRow(lambda a: Qsgd(_whole("qsgd", a, "16")), "qsgd:16", "stochastic levels of the norm, unbiased"),
        "terngrad": StageRow(_plain(TernGrad()), "terngrad", "stochastic −1, 0, +1 times the largest value, unbiased"),
        "sign": StageRow(_plain(Sign()), "sign", "one bit and the mean magnitude"),
        "flat": StageRow(_plain(Flat()), "flat", "join all tensors into one vector first"),
        "topk": StageRow(
            lambda a: TopK(_number("topk", a)), "topk:0.1", "keep this fraction of largest magnitude", True
        ),
        "threshold": StageRow(
            lambda a: Threshold(_number("threshold", a)), "threshold:0.001", "keep |x| above this", True
        ),
        "dgc": StageRow(
            lambda a: SampledTopK(_number("dgc", a)), "dgc:0.01", "about this fraction, by sampled threshold", True
        ),
        "deflate": StageRow(
            lambda a: Deflate(_whole("deflate", a or "6", "6")), "deflate", "zlib over the whole payload"
        ),
    },
)

CODECS: Table[CodecRow] = Table(
    "codec",
    CodecRow,
    {
        "ecsq": CodecRow(parse_ecsq, "ecsq", "entropy-coded quantizer: step or abs, examples, rounding, rank", True),
        "linear": CodecRow(
            parse_linear, "linear:clip=8,bits=6", "fixed-width levels that add up, for secure aggregation"
        ),
        "sketch": CodecRow(
            parse_sketch, "sketch:k=256", "a random projection that all clients of a round share; adds up"
        ),
        "powersgd": CodecRow(
            lambda a: PowerSgd(_whole("powersgd", a, "2")), "powersgd:2", "low-rank factors of matrices"
        ),
    },
)

PRESETS: dict[str, str] = {
    "exact": "none",
    "half": "float16",
    "safe": "q8+deflate",
    "small": "q4+deflate",
    "sparse": "topk:0.01+q8+deflate",
    "int8-zlib": "q8:nearest+deflate",
    "topk-entropy": "flat+topk:0.01+q8:nearest",
    "stc": "flat+topk:0.01+sign",
}
"""Name → codec text; ``fl-mobile codecs`` prints them."""


def is_sparse(text: str) -> bool:
    """Returns whether most coordinates of what the codec called ``text`` decodes are zero.

    >>> [is_sparse(text) for text in ("ecsq", "topk:0.01+q8+deflate", "sparse", "q8")]
    [True, True, True, False]
    """
    return any((CODECS if name in CODECS else STAGES)[name].sparse for name in part_names(text))


def parse_codec(text: str) -> Codec:
    """Returns the codec that ``text`` names.

    Raises:
        ConfigError: An unknown stage, a bad argument, or stages that do not fit.
    """
    text = PRESETS.get(text, text)
    whole, argument = split_part(text)
    if whole in CODECS:
        if "+" in text:
            raise ConfigError(f"codec '{text}': '{whole}' is a whole codec, it takes no further stages")
        return CODECS[whole].build(argument or None)
    stages = []
    for part in text.split("+"):
        name, argument = split_part(part)
        if name not in STAGES:
            raise ConfigError(f"unknown codec stage '{name}' in '{text}'.{nearest(name, [*STAGES, *CODECS, *PRESETS])}")
        stages.append(STAGES[name].build(argument or None))
        if stages[-1].name != part.strip() and name in STAGES.own():
            raise ConfigError(
                f"codec stage {name}: its name must be what it is found by, '{part}', got '{stages[-1].name}'"
            )
    return chain(*stages)


def split_part(text: str) -> tuple[str, str]:
    """Returns the name of a stage or codec, and its argument or an empty text.

    >>> split_part("topk:0.1"), split_part("my.stages:HALVES:3")
    (('topk', '0.1'), ('my.stages:HALVES', '3'))
    """
    name, _, argument = text.strip().partition(":")
    attribute, _, rest = argument.partition(":")
    own = f"{name}:{attribute}"
    return (own, rest) if name not in STAGES and name not in CODECS and is_own(own) else (name, argument)


def own_parts(text: str) -> list[str]:
    """Returns each ``package.module:name`` in a codec's text, whether that is there or not."""
    return [name for name in part_names(text) if is_own(name)]


def part_names(text: str) -> list[str]:
    """Returns the name of each stage, or of the codec, in a codec's text."""
    return [split_part(part)[0] for part in PRESETS.get(text, text).split("+")]


def admit_codec(text: str) -> None:
    """Loads the stages, or the codec, of one's own that a user's codec text names; see `Table.admit`.

    Raises:
        ConfigError: One of them is none.
    """
    for name in part_names(text):
        if not is_own(name):
            CODECS.admit(name)
            STAGES.admit(name)
        elif source_sha256(name):
            (CODECS if isinstance(load("codec", name), CodecRow) else STAGES).admit(name)


def contracting(codec: Codec, share: float = 0.25) -> Codec:
    """Returns the codec, rounding so that it contracts if it is one that can choose; see `Codec.contracts`.

    >>> contracting(parse_codec("ecsq")).name
    'ecsq:step=2,rounding=rdo'
    """
    return codec.contracting(share) if isinstance(codec, Ecsq) else codec
