"""Text for LaTeX: nothing in it is taken for a command, and nothing joins into another character."""

import re
from unicodedata import normalize

from cifar.reports.findings.wording import printable

# Braces by name, because BibTeX counts those with a backslash too.
SPECIAL = {
    "\\": "\\textbackslash{}", "{": "\\textbraceleft{}", "}": "\\textbraceright{}", "&": "\\&", "%": "\\%",
    "$": "\\$", "#": "\\#", "_": "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\symbol{34}", "'": "\\textquotesingle{}",
    "`": "\\textasciigrave{}", "–": "\\textendash{}", "—": "\\textemdash{}",
    "…": "\\ldots{}", "×": "$\\times$", "±": "$\\pm$", "µ": "$\\mu$", "→": "$\\to$", "≤": "$\\leq$", "≥": "$\\geq$",
    "€": "\\texteuro{}", "°": "\\textdegree{}",
}  # fmt: skip
JOINING = re.compile(r"(?<=([-,]))(?=\1)")  # two of these would become a dash or a quotation mark
LETTERS = "ßæøåÆØÅ"  # beside those with accents
BREAKS = re.compile(r"(?<=[,=/])(?=\S)")  # where a long command may go on in the next line


def tex(text: str) -> str:
    """Return a text as LaTeX shows it as it is, on one line; a letter that LaTeX's fonts lack becomes its number."""
    return JOINING.sub("{}", "".join(map(tex_character, printable(text))))


def tex_code(text: str) -> str:
    """Return a text in the typewriter's font, which may go on in the next line behind a separator."""
    parts = [tex(part) for part in BREAKS.split(printable(text))]
    joined = "\\allowbreak ".join(parts)
    return f"\\texttt{{{joined}}}"


def tex_character(character: str) -> str:
    """Return one character for LaTeX."""
    if character in SPECIAL:
        return SPECIAL[character]
    plain = normalize("NFKD", character).encode("ascii", "ignore").decode()
    if character.isascii() or character in LETTERS or (plain.isalpha() and ord(character) < 0x100):  # é as UTF-8
        return character
    return "".join(map(tex_character, plain)) if plain else f"[U+{ord(character):04X}]"
