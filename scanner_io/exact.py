"""Structs whose float fields hold floats: what is written and read again is then equal, and hashes alike."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import msgspec.inspect as types
import numpy as np


class Exact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of structs that are stored: `score=3` is kept as 3.0, which is what reading it gives.

    A subclass with a `__post_init__` of its own calls this one.
    """

    def __post_init__(self) -> None:
        """Turn whole numbers in fields of floats, or of mappings and tuples of floats, into floats."""
        for name in float_fields(type(self)):
            value = getattr(self, name)
            if type(value) is not float and value is not None:
                msgspec.structs.force_setattr(self, name, _as_floats(value))


@cache
def float_fields(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields whose numbers are all floats."""
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    return tuple(f.name for f in info.fields if (kinds := _numbers(f.type)) and kinds == {types.FloatType})


def _numbers(told: types.Type) -> set[type[types.Type]]:
    """Return which kinds of number a type has in it; other structs look after their own."""
    match told:
        case types.FloatType() | types.IntType():
            return {type(told)}
        case types.UnionType(types=inside) | types.TupleType(item_types=inside):
            return set().union(*map(_numbers, inside))
        case types.DictType():
            return _numbers(told.value_type)
        case types.VarTupleType() | types.ListType():
            return _numbers(told.item_type)
    return set()


def _as_floats(value: Any) -> Any:
    if isinstance(value, int | float | np.number):
        return float(value)
    if isinstance(value, dict):
        return {key: _as_floats(one) for key, one in value.items()}
    return tuple(map(_as_floats, value)) if isinstance(value, tuple) else value
