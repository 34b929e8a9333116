"""Identity: the fields of a configuration that can change a result, and the digest over them.

Every field of a suite is declared *identity* (it can change a hypothesis), *scoring* (it can change only scores), or
*runtime* (it can change neither):

    class Decoding(Record):
        candidates: Annotated[int, IDENTITY] = 8
        batch_size: Annotated[int, RUNTIME] = 16

`Record` refuses a class with an undeclared field when the class is defined, so that no field can be forgotten.
"""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict


class Role(Enum):
    """How a configuration field can affect a result."""

    IDENTITY = "identity"
    SCORING = "scoring"
    RUNTIME = "runtime"


IDENTITY = Role.IDENTITY
SCORING = Role.SCORING
RUNTIME = Role.RUNTIME


class Record(BaseModel):
    """A frozen, validated configuration record, each of whose fields has a declared `Role`.

    Raises:
        TypeError: at class definition, if a field has no role, or two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Check that each field of the new class has exactly one role."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            roles = [item for item in field.metadata if isinstance(item, Role)]
            if len(roles) != 1:
                raise TypeError(
                    f"{cls.__name__}.{name} must be declared IDENTITY, SCORING or RUNTIME, once; it has {roles}"
                )

    def identity(self) -> dict[str, Any]:
        """Only the identity fields, also of nested records, as plain JSON values."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if IDENTITY in field.metadata
        }


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.identity()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")
