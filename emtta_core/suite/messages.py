"""Error messages for invalid suites: the field, its value, and what is allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

MAX_SHOWN = 10


def explain(error: ValidationError, record: type[BaseModel], data: Mapping[str, Any], origin: str) -> str:
    """Write one line per mistake: where it is, its value, and what is allowed.

    Args:
        error: the validation error.
        record: the record that was validated.
        data: the validated data, which has the names of domains for the indices in errors.
        origin: the file, or another name of the suite.
    """
    found = list(_independent(error.errors(include_url=False, include_context=True)))
    lines = [f"  {_mistake(details, record, data)}" for details in found[:MAX_SHOWN]]
    if len(found) > MAX_SHOWN:
        lines.append(f"  … and {len(found) - MAX_SHOWN} more")
    count = "a mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return f"{origin} has {count}:\n" + "\n".join(lines)


def _mistake(details: ErrorDetails, record: type, data: Mapping[str, Any]) -> str:
    path, parents = _walk(details["loc"], record, data)
    kind, value = details["type"], details["input"]
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        fields = sorted({name for parent in parents for name in _fields(parent)})
        return f"{path} is an unknown field; choose from: {', '.join(fields)}"
    if kind == "missing":
        return f"{path} is missing"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        context = details.get("ctx", {})
        allowed = context.get("expected_tags") or "see the layout in docs/suites.md"
        return f"{path}.name is {context.get('tag')!r}; choose from: {allowed}"
    if kind == "value_error":  # raised by our own validators, which name the value
        return f"{path}: {details['msg'].removeprefix('Value error, ')}"
    if kind == "string_pattern_mismatch":
        return f"{path} is {_shown(value)}; it should match the pattern {details['ctx']['pattern']}"
    expected = details["msg"].partition(" should ")[2].partition(" after validation")[0]
    return f"{path} is {_shown(value)}; it should {expected or 'not be: ' + details['msg']}"


def _independent(found: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    # The mistakes, without those that follow from others: a list counts as too short if its items are invalid.
    for details in found:
        location = details["loc"]
        inside = any(other["loc"][: len(location)] == location and other is not details for other in found)
        if not (details["type"] == "too_short" and inside):
            yield details


def _walk(location: tuple[int | str, ...], record: type[BaseModel], data: Mapping[str, Any]) -> tuple[str, list[type]]:
    # The path of a field as text, and the records in which it may have been meant.
    names: list[str] = []
    records: list[type] = [record]
    parents = records
    item: Any = data
    for part in location:
        parents = records
        if isinstance(part, int):
            item = item[part] if isinstance(item, list) and part < len(item) else None
            name = item.get("name") if isinstance(item, dict) else None
            names[-1] += f"[{name if isinstance(name, str) else part}]"
            continue
        tagged = [kind for kind in records if part in _tags(kind)]
        if tagged and not any(part in _fields(kind) for kind in records):
            records = tagged  # the tag that selected a record of a union is not a field
            continue
        names.append(part)
        item = item.get(part) if isinstance(item, dict) else None
        records = [inner for kind in records for inner in _records(_fields(kind).get(part))]
    return ".".join(names) or "the suite", parents


def _fields(record: type) -> dict[str, Any]:
    # Each field's type, for a pydantic model, a dataclass, or a TypedDict.
    if issubclass(record, BaseModel):
        return {name: field.annotation for name, field in record.model_fields.items()}
    return get_type_hints(record)


def _records(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel) or is_dataclass(annotation) or is_typeddict(annotation):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from _records(inner)


def _tags(record: type) -> tuple[str, ...]:
    return get_args(_fields(record).get("name"))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Find the fields in which two plain values differ, each with both values.

    Args:
        one: one value, for example of `Suite.identity`.
        other: the other.
        path: the path of the field that has them.

    Returns:
        Tuples such as `("adaptation.steps", 10, 5)`; domains are identified by name, not by index.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        found = [differences(one.get(key), other.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [item for items in found for item in items]
    if path == "domains" and isinstance(one, list) and isinstance(other, list):
        by_name = [{item["name"]: item for item in items} for items in (one, other)]
        return differences(by_name[0], by_name[1], path)
    return [] if one == other else [(path, one, other)]
