"""The keys of a contract that say how the gateway treats the endpoint's requests: log, serving."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, cast

from relevo.contract.model import LogPolicy, Serving, ServingLimits
from relevo.contract.reading import Block

_MODES = ("durable", "buffered")


def read_log(root: Block) -> LogPolicy:
    """The key ``log``: ``durable``, ``buffered``, or ``{mode, sample, when_full}``."""
    if not root.is_block("log"):
        return LogPolicy(cast(Literal["durable", "buffered"], root.choice("log", _MODES, "durable")))
    block = root.block("log")
    keys = LogPolicy(
        mode=cast(Literal["durable", "buffered"], block.choice("mode", _MODES, "durable")),
        sample=block.bounded("sample", 1.0, lambda value: 0 < value <= 1, "a share above 0 and at most 1"),
        when_full=cast(Literal["refuse", "serve"], block.choice("when_full", ("refuse", "serve"), "refuse")),
    )
    block.close()
    return keys


def read_serving(root: Block) -> Serving:
    """The block ``serving``: ``{limits: {rows, body_bytes, ...}}``, each a whole number above zero."""
    block = root.optional_block("serving")
    limits = None if block is None else block.optional_block("limits")
    if block is not None:
        block.close()
    return Serving() if limits is None else Serving(_limits(limits))


def _limits(block: Block) -> ServingLimits:
    names = [field.name for field in fields(ServingLimits)]
    block.keys_known(*names)
    block.close()
    return ServingLimits(**{name: block.whole(name, 1, at_least=1) for name in names if name in block})
