"""What Whisper calls the languages of the corpora."""

import re
from collections.abc import Mapping

_OTHERS: Mapping[str, str] = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}
"""What Whisper calls a language, where it is not what corpora do: its own code of Javanese is the old `jw`."""


def whisper_code(language: str) -> str:
    """Return Whisper's code of a language, which a corpus may name with a script or a region: `pt_br`, `zh-CN`."""
    code = re.split("[-_]", language, maxsplit=1)[0]
    return _OTHERS.get(code, code)
