"""True translation pairs, English to another language, rendered by Babel from the Unicode CLDR.

1. No-break spaces are written as spaces, and marks for writing direction are left out.
2. A name that reads alike in both languages is no translation, and is left out.
3. The CLDR's French dates have no "1er" for the first of a month; we write it.
4. Names that differ in a remark in brackets, such as old and new currencies, are kept in one split.
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llmlab.data.corpus import Corpus, Example
from llmlab.data.errors import DataError, nearest
from llmlab.data.split import split_by

if TYPE_CHECKING:
    from babel import Locale

LICENCE = "BSD-3-Clause (Babel), Unicode-3.0 (CLDR data)"
DAYS = (dt.date(1900, 1, 1), 365 * 200)  # the first day, and how many follow it
LARGEST = 99_999  # of the whole numbers in amounts and durations
_FIRST = re.compile(r"(?<!\d)1 (?=[a-zéû]+ \d{4})")
MOST = 200_000  # pairs: more would begin to exhaust what can be said

_UNITS = (
    *("length-kilometer", "length-meter", "length-mile", "mass-kilogram", "mass-gram", "volume-liter"),
    *("duration-second", "duration-minute", "duration-hour", "duration-day", "duration-week"),
    *("duration-month", "duration-year", "area-square-meter", "area-hectare", "power-kilowatt"),
    *("temperature-celsius", "speed-kilometer-per-hour", "digital-megabyte"),
)
_CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "CAD", "INR", "BRL", "ZAR", "PLN", "SEK", "MXN")


def dates(language: str = "fr", size: int = 5000, seed: int = 0) -> Corpus:
    """Return `size` different pairs (3 to 200,000): dates, times, durations, amounts, measures.

    Columns: `source` (English) and `target` (`language`, a CLDR name such as "fr" or "pt-BR"). No
    date and no whole number is in two splits; a smaller size is the beginning of a larger one. 5,000 pairs
    take one or two seconds. Raises DataError for an unknown language or an impossible size.
    """
    english, other = locale("en"), foreign(language)
    if not 3 <= size <= MOST:
        raise DataError(f"dates: size = {size} must be 3 to {MOST:,}")
    keys: dict[str, str] = {}
    rows: list[Example] = []
    for key, render in _phrases(random.Random(f"dates {seed}")):
        source, target = plain(render(english)), plain(render(other))
        if other.language == "fr":
            target = _FIRST.sub("1er ", target)
        if source not in keys and source.casefold() != target.casefold():
            keys[source] = key
            rows.append({"source": source, "target": target})
        if len(rows) == size:
            break
    splits = split_by(rows, lambda row: keys[row["source"]], seed)
    return Corpus("dates", splits, origin(), LICENCE, {"language": language, "size": size, "seed": seed})


def names(language: str = "fr", size: int | None = None, seed: int = 0) -> Corpus:
    """Return 700 to 3,000 pairs (or `size` of them): names of territories, languages, currencies, scripts.

    Columns: `source` (English) and `target` (`language`). No name is in two splits. Raises DataError
    for an unknown language or an impossible size.
    """
    pairs = _names(locale("en"), foreign(language))
    rows: list[Example] = [{"source": source, "target": target} for source, target in pairs.items()]
    splits = split_by(sample("names", rows, size, seed), lambda row: _bare(row["source"]), seed)
    return Corpus("names", splits, origin(), LICENCE, {"language": language, "size": size, "seed": seed})


def _phrases(dice: random.Random) -> Iterator[tuple[str, Callable[[Locale], str]]]:
    """Yield (the date or number that the phrase is about, a function that says it in a language)."""
    from babel import dates as of_dates
    from babel import numbers
    from babel.units import format_unit

    def date(day: dt.date, form: Any) -> Callable[[Locale], str]:
        return lambda to: of_dates.format_date(day, form, locale=to)

    def moment(day: dt.date, minute: int) -> Callable[[Locale], str]:
        time = dt.time(minute // 60, minute % 60)
        return lambda to: (
            str(of_dates.get_datetime_format("full", locale=to))
            .replace("'", "")
            .replace("{0}", of_dates.format_time(time, "short", locale=to))
            .replace("{1}", of_dates.format_date(day, "full", locale=to))
        )

    def soon(span: dt.timedelta, unit: Any) -> Callable[[Locale], str]:
        return lambda to: of_dates.format_timedelta(span, unit, threshold=float("inf"), add_direction=True, locale=to)

    def measure(number: int, unit: str) -> Callable[[Locale], str]:
        return lambda to: str(format_unit(number, unit, "long", locale=to))

    def money(number: Decimal, currency: str) -> Callable[[Locale], str]:
        return lambda to: numbers.format_currency(number, currency, locale=to, format_type="name")

    while True:
        day = DAYS[0] + dt.timedelta(days=dice.randrange(DAYS[1]))
        yield str(day), date(day, "full")
        yield str(day), date(day, "long")
        day = DAYS[0] + dt.timedelta(days=dice.randrange(DAYS[1]))
        yield str(day), moment(day, dice.randrange(24 * 60))
        number, sign = _number(dice), dice.choice((-1, 1))
        unit = dice.choice(("day", "hour", "minute", "second"))
        yield str(number), soon(sign * dt.timedelta(**{unit + "s": number}), unit)
        number = _number(dice)
        yield str(number), measure(number, dice.choice(_UNITS))
        number = _number(dice)
        currency, cents = dice.choice(_CURRENCIES), f"{dice.randrange(100):02}"
        if not numbers.get_currency_precision(currency):
            cents = "0"  # 7.95 yen would be rounded to the number 8, which may be in another split
        yield str(number), money(Decimal(f"{number}.{cents}"), currency)


def _number(dice: random.Random) -> int:
    """Return a whole number whose count of digits is as likely to be small as large."""
    return dice.randint(1, 10 ** dice.randint(1, len(str(LARGEST))) - 1)


def _names(english: Locale, other: Locale) -> dict[str, str]:
    """Return names by English name, where the two languages differ."""
    pairs: dict[str, str] = {}
    for kind in ("territories", "languages", "currencies", "scripts"):
        theirs = getattr(other, kind)
        for code, source in sorted(getattr(english, kind).items()):
            source, target = plain(source), plain(theirs.get(code, source))
            if source.casefold() != target.casefold():
                pairs.setdefault(source, target)
    return pairs


def _bare(name: str) -> str:
    return re.sub(r"\s*\([^)]*\)", "", name).casefold()


def sample(name: str, rows: list[Example], size: int | None, seed: int) -> list[Example]:
    """Return `size` of the rows, drawn by `seed`; all of them for None. DataError outside 3 to all."""
    if size is None:
        return rows
    if not isinstance(size, int) or not 3 <= size <= len(rows):
        raise DataError(f"{name}: size = {size!r} must be 3 to {len(rows):,}, or None for all")
    return random.Random(f"{name} {seed}").sample(rows, size)


def plain(text: str) -> str:
    """Return text with ordinary spaces and no invisible marks."""
    return re.sub(r"[\u200e\u200f\u061c]", "", re.sub(r"[\u00a0\u2009\u202f]", " ", text)).strip()


def foreign(language: str) -> Locale:
    """Return the locale of a language other than English; DataError names the nearest known one."""
    found = locale(language)
    if found.language == "en":
        raise DataError(f'language "{language}" is English already: name another, such as "fr" or "de"')
    return found


def locale(language: str) -> Locale:
    """Return Babel's locale for a name such as "fr" or "pt-BR"; DataError where it has none."""
    try:
        from babel import Locale, UnknownLocaleError
        from babel.localedata import locale_identifiers
    except ImportError as error:
        raise DataError("this corpus needs Babel: python -m pip install babel") from error
    try:
        return Locale.parse(str(language).replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError) as error:
        close = nearest(str(language), locale_identifiers())
        raise DataError(f'Babel knows no language "{language}".{close} Examples: fr, de, es, pt-BR.') from error


def origin() -> str:
    """Return where the names and patterns come from."""
    return f"Unicode CLDR through Babel {version('babel')}"
