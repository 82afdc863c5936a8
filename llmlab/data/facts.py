"""Questions with true answers: currencies and official languages of the world, from the Unicode CLDR.

1. The facts are the CLDR's; the wording of questions and passages is ours.
2. A language counts as official where the CLDR says so for the whole territory: neither regional nor
   merely customary languages do. Of several currencies in use the first listed one is asked for.
3. A territory is in one split only. What several territories share, such as the euro, is in many.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmlab.data.corpus import Corpus, Example
from llmlab.data.errors import DataError
from llmlab.data.locales import LICENCE, locale, origin, plain, sample
from llmlab.data.split import split_by

# Codes of unions, of the unknown and of test data: they have no currency or language of their own.
_NO_PLACE = {"EU", "EZ", "UN", "QO", "XA", "XB", "ZZ"}
_ARTICLE = re.compile(
    r"(United|Central African|Dominican|Isle|Bahamas|Gambia|Netherlands|Philippines|Maldives|Comoros"
    r"|Caribbean|British|U\.S\.|French Southern)\b|.*(Islands|Territories|Territory)$"
)
_FACTS = ("currency", "code", "language")

# Outside English the territory stands before a colon: articles and cases of names are no part of the CLDR.
_QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "currency": "What is the currency of {place}?",
        "code": "What is the three-letter code of the currency of {place}?",
        "language": "Which language is official in {place}?",
        "languages": "Which languages are official in {place}?",
    },
    "fr": {
        "currency": "{place} : quelle est la monnaie ?",
        "code": "{place} : quel est le code à trois lettres de la monnaie ?",
        "language": "{place} : quelle est la langue officielle ?",
        "languages": "{place} : quelles sont les langues officielles ?",
    },
    "de": {
        "currency": "{place}: Was ist die Währung?",
        "code": "{place}: Was ist der dreistellige Code der Währung?",
        "language": "{place}: Was ist die Amtssprache?",
        "languages": "{place}: Was sind die Amtssprachen?",
    },
    "es": {
        "currency": "{place}: ¿cuál es la moneda?",
        "code": "{place}: ¿cuál es el código de tres letras de la moneda?",
        "language": "{place}: ¿cuál es la lengua oficial?",
        "languages": "{place}: ¿cuáles son las lenguas oficiales?",
    },
}
_STATEMENTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "currency": "The currency of {place} is the {answer}.",
        "code": "The three-letter code of the currency of {place} is {answer}.",
        "language": "The official language of {place} is {answer}.",
        "languages": "The official languages of {place} are {answer}.",
    },
    "fr": {
        "currency": "{place} : la monnaie est « {answer} ».",
        "code": "{place} : le code à trois lettres de la monnaie est {answer}.",
        "language": "{place} : la langue officielle est « {answer} ».",
        "languages": "{place} : les langues officielles sont « {answer} ».",
    },
    "de": {
        "currency": "{place}: Die Währung ist {answer}.",
        "code": "{place}: Der dreistellige Code der Währung ist {answer}.",
        "language": "{place}: Die Amtssprache ist {answer}.",
        "languages": "{place}: Die Amtssprachen sind {answer}.",
    },
    "es": {
        "currency": "{place}: la moneda es «{answer}».",
        "code": "{place}: el código de tres letras de la moneda es {answer}.",
        "language": "{place}: la lengua oficial es «{answer}».",
        "languages": "{place}: las lenguas oficiales son «{answer}».",
    },
}


@dataclass(frozen=True)
class Fact:
    """One thing known about a territory: `kind` picks the wording, `answer` is what is asked for."""

    code: str
    place: str
    kind: str
    answer: str


def facts(language: str = "en", context: bool = False, size: int | None = None, seed: int = 0) -> Corpus:
    """Return 500 to 800 questions about 200 to 260 territories (or `size` questions), in three splits.

    Columns: `prompt` (a question and a line end) and `response`. With `context` the prompt opens with
    a passage on two territories that holds the answer, and rows also carry `context`, `question` and
    `answer_start`, the offset in characters of the response in `context`. No territory is in two
    splits, in passages neither. `language` is en, fr, de or es. Raises DataError for other languages
    and impossible sizes.
    """
    if language not in _QUESTIONS:
        raise DataError(f'facts: no language "{language}": there are {", ".join(_QUESTIONS)}')
    rows: list[Example] = [{"fact": fact} for fact in _known(language)]
    dealt = split_by(sample("facts", rows, size, seed), lambda row: row["fact"].code, seed)
    dice = random.Random(f"facts {seed}")
    splits: dict[str, list[Example]] = {}
    for split, held in dealt.items():
        known = [row["fact"] for row in held]
        splits[split] = [_with_context(f, known, language, dice) if context else _row(f, language) for f in known]
    options = {"language": language, "context": context, "size": size, "seed": seed}
    return Corpus("facts", splits, origin(), LICENCE, options)


def _known(language: str) -> list[Fact]:
    """Return what the CLDR knows, in the words of `language`."""
    from babel.languages import get_official_languages
    from babel.lists import format_list
    from babel.numbers import get_territory_currencies

    to = locale(language)
    found: list[Fact] = []
    for code, name in sorted(to.territories.items()):
        if not re.fullmatch("[A-Z]{2}", code) or code in _NO_PLACE:
            continue
        place = f"the {name}" if language == "en" and _ARTICLE.match(name) else plain(name)
        currencies = get_territory_currencies(code)
        if currencies and currencies[0] in to.currencies:
            found.append(Fact(code, place, "currency", plain(to.currencies[currencies[0]])))
            found.append(Fact(code, place, "code", currencies[0]))
        spoken = [plain(to.languages[tongue]) for tongue in get_official_languages(code) if tongue in to.languages]
        if spoken:
            kind = "language" if len(spoken) == 1 else "languages"
            found.append(Fact(code, place, kind, format_list(spoken, locale=to)))
    return found


def _question(fact: Fact, language: str) -> str:
    return _QUESTIONS[language][fact.kind].format(place=fact.place)


def _row(fact: Fact, language: str) -> Example:
    return {"prompt": _question(fact, language) + "\n", "response": fact.answer}


def _with_context(fact: Fact, known: Sequence[Fact], language: str, dice: random.Random) -> Example:
    """Return the question with a passage on its territory and another of the same split."""
    others = sorted({other.code for other in known} - {fact.code})
    rival = dice.choice(others) if others else fact.code
    told = [f for f in known if f.code in (fact.code, rival) and (f == fact or f.answer != fact.answer)]
    dice.shuffle(told)
    passage, start = "", -1
    for item in told:
        template = _STATEMENTS[language][item.kind]
        sentence = template.format(place=item.place, answer=item.answer)
        if item == fact:
            # the answer stands behind the place, which may hold the same word (French Guiana: French)
            start = len(passage) + template.format(place=item.place, answer="\0").index("\0")
        passage += sentence + " "
    passage = passage.rstrip()
    question = _question(fact, language)
    return {
        "prompt": f"{passage}\n{question}\n",
        "response": fact.answer,
        "context": passage,
        "question": question,
        "answer_start": start,
    }
