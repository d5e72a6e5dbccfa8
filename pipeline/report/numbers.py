"""Numbers as a reader wants them: three digits, powers of ten with real superscripts, times in human
units."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"
_MINUS = "−"
# Keeps a number and its unit on one line.
_SPACE = "\N{NO-BREAK SPACE}"


def quantity(x: object, digits: int = 3) -> str:
    """`x` to `digits` significant digits, as 0.0123, 12,300 or 1.23 × 10⁻⁹; a dash when it is not a
    number."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return MISSING
    if math.isnan(x):
        return "not a number"
    if math.isinf(x):
        return "∞" if x > 0 else _MINUS + "∞"
    if x == 0:
        return "0"
    if isinstance(x, int) and abs(x) < 10**9:
        return f"{x:,}".replace("-", _MINUS)
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power < 5:
        return f"{x:,.{max(digits - 1 - power, 0)}f}".replace("-", _MINUS)
    if float(mantissa) == 1.0:
        return power_of_ten(power)
    return f"{mantissa.replace('-', _MINUS)}{_SPACE}×{_SPACE}{power_of_ten(power)}"


def setting(x: object) -> str:
    """A number that a person chose, with the digits it was given: 0.001, 10⁻⁶, 3 × 10⁻⁵."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        return quantity(x)
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        return f"{x:,.15g}".replace("-", _MINUS)
    digits = len(f"{x:.15g}".split("e")[0].replace(".", "").strip("-0"))
    return quantity(float(x), max(digits, 1))


def with_error(x: object, error: object) -> str:
    """1.234 ± 0.037: the error to two digits, the value to the same place."""
    if not isinstance(x, int | float) or not isinstance(error, int | float):
        return quantity(x)
    if not math.isfinite(error) or error <= 0 or not 1e-6 < error < 1e3:
        return quantity(x)
    places = max(1 - math.floor(math.log10(error)), 0)
    return f"{x:.{places}f}{_SPACE}±{_SPACE}{error:.{places}f}".replace("-", _MINUS)


def power_of_ten(exponent: int) -> str:
    """10⁻⁶ for −6."""
    return f"10{str(exponent).translate(_SUPERSCRIPT)}"


def percent(x: object, decimals: int = 1) -> str:
    """98.6 % for 0.986."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        return MISSING
    return f"{100 * x:.{decimals}f}{_SPACE}%"


def share_of_limit(x: float | None) -> str:
    """A part of an allowance: 12 %, 0.03 %, or a multiple when it is exceeded."""
    if x is None or not math.isfinite(x):
        return MISSING
    if x >= 10:
        return f"{quantity(x)}{_SPACE}×"
    return f"<{_SPACE}0.01{_SPACE}%" if 0 < x < 1e-4 else f"{quantity(100 * x, 2)}{_SPACE}%"


def duration(seconds: object) -> str:
    """12.3 s, 4 min 05 s, 3 h 20 min or 2 d 4 h."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return MISSING
    if seconds < 99.95:
        return f"{quantity(float(seconds))}{_SPACE}s"
    whole = round(seconds)
    for unit, name, part, below, width in (
        (86400, "d", 3600, "h", 1),
        (3600, "h", 60, "min", 2),
        (60, "min", 1, "s", 2),
    ):
        if whole >= unit:
            return f"{whole // unit}{_SPACE}{name}{_SPACE}{whole % unit // part:0{width}d}{_SPACE}{below}"
    return f"{whole}{_SPACE}s"
