"""How the page writes numbers: with a true minus, as many decimals as a column has, a dash for what is not known."""

from emtta_core.report.facts import Figure

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
ALPHA = 0.05
"""The p from which on a difference is called one."""


def rate(value: float | None) -> str:
    """Return a rate in percent with two decimals."""
    return NOTHING if value is None else f"{value:.2f}".replace("-", MINUS)


def points(value: float | None) -> str:
    """Return a difference with its sign and two decimals."""
    return NOTHING if value is None else _signed(f"{value:+.2f}")


def signed_percent(value: float | None) -> str:
    """Return a relative difference with its sign and one decimal."""
    return NOTHING if value is None else _signed(f"{value:+.1f}")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return the two ends of an interval; the empty text where there is none."""
    if low is None or high is None:
        return ""
    write = points if signed else rate
    return f"{write(low)}{SPACE}…{SPACE}{write(high)}"


def probability(value: float | None) -> str:
    """Return a p with three decimals."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int | None) -> str:
    """Return a count with its thousands set apart."""
    return NOTHING if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Return a time as a reader says it."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def verdict(figure: Figure) -> str:
    """Return `better` or `worse` where the test says so, else `unclear`; without a test it is always unclear."""
    if not figure.change or figure.p is None or figure.p > ALPHA:
        return "unclear"
    return "better" if figure.change < 0 else "worse"


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")
