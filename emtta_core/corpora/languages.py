"""What Whisper calls the languages of the corpora."""

import re
from collections.abc import Mapping

_OTHERS: Mapping[str, str] = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}
"""What Whisper calls a language, where it is not what corpora do: its own code of Javanese is the old `jw`."""

_REGIONS: Mapping[str, str] = {"zh-HK": "yue"}
"""Where the region says which language is spoken: Common Voice's Chinese of Hong Kong is Cantonese."""


def whisper_code(language: str) -> str:
    """Return Whisper's code of a language, which a corpus may name with a script or a region: `pt_br`, `zh-CN`."""
    if language in _REGIONS:
        return _REGIONS[language]
    code = re.split("[-_]", language, maxsplit=1)[0]
    return _OTHERS.get(code, code)
