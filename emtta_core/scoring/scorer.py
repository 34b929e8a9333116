"""Scorers: the rules by which hypotheses are compared with references. A scorer changes scores, never hypotheses.

Its name is that of a normalizer, followed by options: `whisper`, `jiwer+compounds`, `basic+numbers`.

- `numbers` spells out digits in the utterance's language (num2words), so that "25" and "fünfundzwanzig" match. English
  with Whisper's normalizer does not need it, as that writes all numbers in digits.
- `compounds` lets adjacent words match a single word with the same spelling, such as "ice cream" and "icecream"
  (kaldialign), like the Open ASR Leaderboard; the hypothesis is then spelled like the reference.

A custom normalizer is a function of the text, or of the text and the language, that returns a text: given by its path,
`my_package.mine:normalize`, or by its name among the entry points `emtta.normalizers`. Its release and a digest of its
package's source are recorded with each score.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points, version
from types import ModuleType
from typing import get_args

from emtta_core.errors import EmttaError, UsageError
from emtta_core.plugins import fingerprint, import_plugin
from emtta_core.scoring.normalizer import Normalizer, Rule, normalizer

PLUGINS = "emtta.normalizers"
"""The entry point group of other packages' normalizers."""

OPTIONS = {"numbers": "num2words", "compounds": "kaldialign"}
"""The options that can follow a normalizer's name, and the package that each needs."""

DEFAULT = "whisper"

_BUILT_IN = {rule: partial(normalizer, rule=rule) for rule in get_args(Rule)}

_NAME = re.compile(r"(?P<rule>[\w.-]+(?::[\w.]+)?)(?P<options>(?:\+\w+)*)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")


class ScorerError(EmttaError):
    """A normalizer of another package raised an exception or did not return a text."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A way to compare hypotheses with references."""

    name: str  # as in a suite
    rule: str  # its normalizer
    numbers: bool = False  # whether digits are spelled out
    compounds: bool = False  # whether adjacent words match a single word with the same spelling

    def normalizer(self, language: str) -> Normalizer:
        """The normalizer for texts in a language (ISO 639-1).

        Raises:
            UsageError: there is no such normalizer, or a package is not installed.
        """
        return _normalizer(self, language)

    def align(self, reference: str, hypothesis: str) -> list[tuple[str, str]]:
        """Align two normalized texts with kaldialign, pairing compounds with their component words."""
        pairs = _installed("compounds").align(reference.split(), hypothesis.split(), "", merge_compounds=True)
        return [(str(ref), str(hyp)) for ref, hyp in pairs]


def check_scorer(name: str) -> str:
    """Check the syntax of a scorer's name, not whether a plug-in is installed, as an old run may name a removed one.

    Raises:
        UsageError: it does not name a normalizer, or has an unknown option.
    """
    _parsed(name)
    return name


@cache
def scorer(name: str) -> Scorer:
    """The scorer with this name.

    Raises:
        UsageError: it names an unknown normalizer, or an option whose package is not installed.
    """
    found = _parsed(name)
    found.normalizer("en")
    if found.numbers:
        _installed("numbers")
    if found.compounds:
        _installed("compounds")
    return found


def _parsed(name: str) -> Scorer:
    match = _NAME.fullmatch(name)
    options = match["options"].split("+")[1:] if match else []
    unknown = [option for option in options if option not in OPTIONS]
    if match is None or unknown or len(set(options)) < len(options):
        what = f"has the option {unknown[0]!r}" if unknown else "is not valid"
        raise UsageError(
            f"the scorer {name!r} {what}; use a normalizer, optionally followed by +numbers or +compounds, each once: "
            f"{', '.join(get_args(Rule))}, or a function such as 'my_package.mine:normalize'"
        )
    rule = match["rule"]
    if ":" not in rule and rule not in _BUILT_IN and rule not in (names := entry_points(group=PLUGINS).names):
        raise UsageError(
            f"there is no normalizer {rule!r}; choose from: {', '.join([*_BUILT_IN, *sorted(names)])}; or name a "
            "function such as 'my_package.mine:normalize'"
        )
    return Scorer(name, rule, "numbers" in options, "compounds" in options)


@cache
def _normalizer(chosen: Scorer, language: str) -> Normalizer:
    found = _BUILT_IN[chosen.rule](language) if chosen.rule in _BUILT_IN else _plugin(chosen.rule, language)
    done = []
    function, cleanup = found.function, found.cleanup
    if chosen.numbers and not found.name.startswith("whisper-english") and _speaks(language):
        done.append("numbers")
        function = _after(lambda text: _spelled_out(text, language), function)
    if chosen.compounds:
        done.append("compounds")
    if not done:
        return found
    name = "+".join([found.name, *(f"{option}-{version(OPTIONS[option])}" for option in done)])
    return Normalizer(name, function, found.by_letter, cleanup)


def _after(first: Callable[[str], str], then: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: then(first(text))


def _plugin(path: str, language: str) -> Normalizer:
    # A normalizer of another package; its exceptions name it and the text.
    points = entry_points(group=PLUGINS)
    location = points[path].value if path in points.names else path
    function, origin = _load(location), fingerprint(location)
    takes_language = _arguments(function) > 1

    def normalize(text: str) -> str:
        try:
            normalized = function(text, language) if takes_language else function(text)
        except Exception as error:
            raise ScorerError(
                f"the normalizer {path} raised {type(error).__name__}: {error}, on the text {text!r}; fix it, and "
                "score again"
            ) from error
        if not isinstance(normalized, str):
            raise ScorerError(
                f"the normalizer {path} returned {normalized!r} for the text {text!r}; it must return a text (str)"
            )
        return normalized

    release = origin["version"] or "unversioned"
    return Normalizer(f"{path}/{release}+source-{origin['source']}", normalize)


def _load(path: str) -> Callable[..., object]:
    found = import_plugin("normalizer", path)
    function: object = found() if inspect.isclass(found) else found
    if not callable(function) or not 1 <= _arguments(function) <= 2:
        raise UsageError(
            f"the normalizer {path!r} is {function!r}; it must be a function of the text, or of the text and the "
            "language, that returns a text (str)"
        )
    return function


def _arguments(function: Callable[..., object]) -> int:
    # The number of a function's positional arguments without a default.
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters)


def _installed(option: str) -> ModuleType:
    package = OPTIONS[option]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"the scorer option {option} needs the package {package}; install it: pip install 'emtta[scoring]'"
        ) from error


def _speaks(language: str) -> bool:
    return language in _installed("numbers").CONVERTER_CLASSES


def _spelled_out(text: str, language: str) -> str:
    # A text with its numbers in words; groups of three digits after a point or comma form one whole number.
    def spell(match: re.Match[str]) -> str:
        digits = match[0]
        whole = re.sub("[.,]", "", digits) if _GROUPED.fullmatch(digits) else digits.replace(",", ".")
        try:
            return f" {_installed('numbers').num2words(float(whole) if '.' in whole else int(whole), lang=language)} "
        except (ValueError, OverflowError, NotImplementedError):  # such as 1.2.3, or larger than the language supports
            return digits

    return _NUMBER.sub(spell, text)
