"""Every field of a configuration is declared identity, scoring or runtime, and only identity fields enter a digest."""

import importlib
import pkgutil
from dataclasses import fields
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import emtta_core
from emtta_core.adaptation.options import USES, Options, declarations
from emtta_core.identity import IDENTITY, RUNTIME, Record, Role, digest


class Inner(Record):
    rate: Annotated[int, IDENTITY] = 1
    label: Annotated[str, RUNTIME] = ""


class Outer(Record):
    inner: Annotated[Inner, IDENTITY] = Inner()
    several: Annotated[tuple[Inner, ...], IDENTITY] = ()
    workers: Annotated[int, Field(ge=1), RUNTIME] = 1


def records(base: type[Record] = Record) -> list[type[Record]]:
    return [kind for child in base.__subclasses__() for kind in (child, *records(child))]


def test_field_without_role_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.speed must be declared IDENTITY, SCORING or RUNTIME"):

        class Forgetful(Record):
            speed: int = 1


def test_field_with_two_roles_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Torn\.speed must be declared"):

        class Torn(Record):
            speed: Annotated[int, IDENTITY, RUNTIME] = 1


def test_option_must_declare_methods() -> None:
    class Forgetful(Options):
        speed: int = 1

    with pytest.raises(TypeError, match=r"Forgetful\.speed must name the methods that use it"):
        declarations(Forgetful)
    assert set(USES) == {field.name for field in fields(Options)}


def test_package_declares_every_field() -> None:
    for module in pkgutil.walk_packages(emtta_core.__path__, "emtta_core."):
        importlib.import_module(module.name)
    ours = [kind for kind in records() if kind.__module__.startswith("emtta_core.")]
    assert {"Suite", "Domain", "MethodChoice", "Runtime", "Synthetic", "Folder", "Noise"} <= {
        kind.__name__ for kind in ours
    }
    for kind in ours:
        for field in kind.model_fields.values():
            assert sum(role in field.metadata for role in Role) == 1


def test_runtime_fields_never_count() -> None:
    plain = Outer(inner=Inner(rate=2), several=(Inner(rate=3),))
    labelled = Outer(inner=Inner(rate=2, label="a"), several=(Inner(rate=3, label="b"),), workers=9)
    assert plain.identity() == labelled.identity() == {"inner": {"rate": 2}, "several": [{"rate": 3}]}
    assert digest(plain) == digest(labelled)


def test_identifying_fields_change_digest() -> None:
    variants = [Outer(), Outer(inner=Inner(rate=2)), Outer(several=(Inner(),)), Outer(several=(Inner(), Inner()))]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_digest_is_stable() -> None:
    assert digest({"b": [1, 2.5, None, True], "a": "ä"}) == "26d99402c903f4cd"
    assert digest({}) == "44136fa355b3678a"  # SHA-256 of the two characters {}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=6))
def test_key_order_does_not_matter(values: dict[str, object]) -> None:
    assert digest(values) == digest(dict(reversed(values.items())))


def test_value_types_are_distinct() -> None:
    values = [1, "1", True, 1.5, "1.5", None, "null", [], [1], {}, {"1": 1}]
    assert len({digest(value) for value in values}) == len(values)


def test_noncanonical_value_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no canonical form"):
        digest({"a": {1, 2}})


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Inner.model_validate({"rat": 2})


def test_configuration_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().rate = 3
