r"""How an answer is written: wrappers, letters of choices, words, brackets.

Everything here is linear in the length of the text. A character outside of
ASCII is replaced by the LaTeX that means the same, and by nothing else:
normalising look-alikes would make right answers out of texts that hold none.
"""

import dataclasses
import itertools
import re

from research.grading import extract

# Longer answers, and deeper ones, are compared letter by letter only.
LONGEST, DEEPEST = 1000, 40

_SYMBOLS = {
  "\u2212": "-", "\u2013": "-", "×": r"\times ", "·": r"\cdot ",
  "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "θ": r"\theta ",
  "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "∞": r"\infty ",
  "√": r"\sqrt", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
  "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
  "±": r"\pm ", "°": r"^\circ ", "²": "^{2}", "³": "^{3}", "½": r"\frac{1}{2}",
  "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}",
  "⅔": r"\frac{2}{3}", "ℝ": r"\mathbb{R}", "\u00a0": " ", "\u202f": " ",
  "’": "'", "€": "", "£": "", "¥": "",
}  # fmt: skip
_ASCII = str.maketrans(_SYMBOLS)

_SPACES = re.compile(
  r"\\[,;:!> ]|\\(?:quad|qquad|displaystyle|limits|left|right|[bB]igg?[lr]?)"
  r"(?![a-zA-Z])|~|\s+"
)
_WRAPPERS = [
  re.compile(pattern, re.DOTALL)
  for pattern in (
    r"\$\$([^$]+)\$\$",
    r"\$([^$]+)\$",
    r"\\\[((?:(?!\\\]).)+)\\\]",
    r"\\\(((?:(?!\\\)).)+)\\\)",
    r"\*\*([^*]+)\*\*",
  )
]
FACES = (
  r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt)|mbox"
  r"|boldsymbol|bold|bm|emph|underline|operatorname)"
)
# A typeface around the whole, and a colour before it.
_FACE = re.compile(rf"{FACES}\s*(?=\{{)")
_COLOUR = re.compile(r"^\\(?:text)?color\s*\{[^{}]*\}\s*")
_TRAILING = re.compile(r"(?<![.,;\s])(?:(?<!\\)[.,;\s]|\\[,;:!]|\\\\$)+$")
_RADICAL = re.compile(r"√\s*([0-9]+)")
# `1{,}000`, `1,\!000`: no comma of a list is set so.
_SET_THOUSANDS = re.compile(
  r"(?<![0-9])[0-9]{1,3}(?:(?:\{,\}|,\s*\\!)\s*[0-9]{3})+(?![0-9])"
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_NUMBER = re.compile(
  r"[-+]?(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.[0-9]+)?"
)
_GROUP = re.compile(r"(?<!\\)\{[^{}()\[\]]*\}")
_ROW_GAP = re.compile(r"(\\\\)\s*\[\s*-?[0-9.]+\s*(?:pt|mm|cm|em|ex|in)\s*\]")
_MODULUS = (
  r"\(\s*(?:\\text\s*\{\s*mod\s*\}|\\bmod|\\mod|mod)\s*([0-9a-z]+)\s*\)"
  r"|\\p?mod\s*\{?([0-9a-z]+)\}?$"
)
# What is written in several ways, in the one that the algebra reads.
_SPELLED = [
  (re.compile(pattern), name)
  for pattern, name in (
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"(\\sqrt\s*(?:\[[^\[\]]*\])?)\s*([0-9]{2,})", r"\1{\2}"),
    (r"\\varnothing(?![a-zA-Z])", r"\\emptyset "),
    (r"\\(?:dots|cdots|dotsc)(?![a-zA-Z])", r"\\ldots "),
    (r"\\mathbb\s*([A-Z])(?![a-zA-Z])", r"\\mathbb{\1}"),
    (r"\\colon(?![a-zA-Z])|\{:\}", ":"),
    (r"\\(?:lor|vee)(?![a-zA-Z])", r"\\text{ or }"),
    (r"\\bigcup(?![a-zA-Z])", r"\\cup "),
    (r"\\lbrack(?![a-zA-Z])", "["),
    (r"\\rbrack(?![a-zA-Z])", "]"),
    (r"\\lg(?![a-zA-Z])", r"\\log_{10} "),
    (r"\\(?:blacksquare|square|checkmark|qed)\s*$", ""),
    (_MODULUS, r"\\pmod{\1\2}"),
  )
]
_TEXT = re.compile(rf"{FACES}\s*\{{([^{{}}]*)\}}")
_AND = re.compile(
  rf"\s*(?:,\s*)?(?:{FACES}\s*\{{\s*(?:and|or)\s*\}}|\b(?:and|or)\b)"
)
_JOINED = re.compile(r"(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])")
_RELATION = re.compile(
  r"[<>]|!=|=/=|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant|ne|neq)\b"
)


# `\angle ABC` and ABC are one; `\{x \mid x > 2\}` and x > 2 as well.
_NAMED = re.compile(
  r"\\(?:angle|triangle|overline|overrightarrow|overleftrightarrow)\s*"
  r"(?:\{([A-Z]{2,4})\}|([A-Z]{2,4}))(?![a-zA-Z])"
)
_CONDITION = re.compile(
  r"^\s*\\\{\s*([a-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|\||:)"
  r"((?:(?!\\mid)[^|:{}])*)\\\}\s*$"
)


def bare(text: str) -> str:
  """The answer without what only dresses it; blank where nothing is left."""
  text = _RADICAL.sub(r"\\sqrt{\1}", text).translate(_ASCII)
  text = _undressed(text.replace("...", r"\ldots "))
  if _NUMBER.fullmatch(text):  # most are, and need nothing of what follows
    return text.replace(",", "")
  text = _rows(text)
  # `\\` before a space ends the row of a matrix, and is no spacing.
  text = text.replace(r"\\", "\x00")
  text = _SET_THOUSANDS.sub(_digits, text).replace(r"\!", "")
  text = _SPACES.sub(" ", text).replace("\x00", r"\\ ")
  for pattern, name in _SPELLED:
    text = pattern.sub(name, text)
  text = _ungrouped(re.sub(r"\\?\$", "", text))
  text = _NAMED.sub(r"\1\2", _CONDITION.sub(r"\2", text))
  text = re.sub(r"^\s*\\approx(?![a-z])", "", text)
  if not _RELATION.search(text):
    text = _AND.sub(",", text)
  return text.strip().rstrip(".,;").strip()


def _undressed(text: str) -> str:
  """The text without dollars, typefaces and a full stop around it."""
  for _ in range(4):  # wrappers stand within each other
    before = text
    text = _unfaced(_TRAILING.sub("", text.strip()))
    for wrapper in _WRAPPERS:
      if match := wrapper.fullmatch(text):
        text = match[1]
    if text == before:
      break
  return text


def _rows(text: str) -> str:
  """A matrix without the gaps between its rows, empty rows and phantoms."""
  text = _ROW_GAP.sub(r"\1", text)
  text = re.sub(r"(?:\\\\\s*){2,}", lambda m: r"\\ ", text)
  return re.sub(r"\\[hv]?phantom\s*(?:\{[^{}]*\}|[^{}\\])", "", text)


def _digits(match: re.Match) -> str:
  return re.sub("[^0-9]", "", match[0])


def _ungrouped(text: str) -> str:
  """The text without the commas of thousands, where they are no list's.

  Between brackets they are a list's, but for those of one `\\frac{}` or so.
  """
  text = re.sub(r"(?<=[0-9])\{,\}(?=[0-9])", ",", text)
  if re.search(r"[(\[]|\\\{", text):
    return _GROUP.sub(lambda m: _THOUSANDS.sub(_digits, m[0]), text)
  if re.search(r",(?![0-9]{3}(?![0-9]))", text):
    return text
  return _THOUSANDS.sub(_digits, text)


def _unfaced(text: str) -> str:
  """The text without a typeface or a colour that is around all of it."""
  text = _COLOUR.sub("", text)
  if not (face := _FACE.match(text)):
    return text
  inside = extract.boxed(rf"\boxed{text[face.end() :]}") or ""
  return inside if inside == text[face.end() + 1 : -1] else text


def readable(text: str) -> bool:
  """Whether a text may be given to the algebra at all."""
  if not text or len(text) > LONGEST or not text.isascii():
    return False
  # What stands behind an unescaped `%` is a comment.
  if re.search(r"(?<!\\)%\s*[^\s,;)}\]]", text):
    return False
  # `1 2` is not 12.
  if re.fullmatch(r"[0-9]+(?: +[0-9]+)+", text):
    return False
  # No answer writes out 10^100000, and to try would only take its time.
  if re.search(r"\^\W*[0-9]{5}", text):
    return False
  return depth(text) <= DEEPEST


def depth(text: str) -> int:
  """How deeply brackets of any kind are nested."""
  steps = ((c in "([{") - (c in ")]}") for c in text)
  return max(itertools.accumulate(steps, initial=0))


def compact(text: str) -> str:
  """A bare text without spaces and without the names of typefaces."""
  text = _TEXT.sub(r"\1", text)
  text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)  # `1 2` is not 12
  return re.sub(r"(?<!\\)\{(\w)\}", r"\1", text)


_OPERATOR = re.compile(
  r"\\(?:[dtc]?frac|sqrt|cdot|times|div|[dt]?binom|pi|left|right|log|ln)"
  r"(?![a-zA-Z])"
)
_SUBSCRIPT = re.compile(r"_\s*\{[^{}]*\}")


def only_solved(equation: str, other: str) -> bool:
  """Whether a value is compared with an equation that does not assign it.

  `x = 5` says 5, and so does `2 + 3 = 5`; a gold `x + y = 5` does not.
  """
  left, equals, _ = _SUBSCRIPT.sub("", equation).partition("=")
  if not equals or "=" in other or _RELATION.search(equation + other):
    return False
  return bool(
    _letters(left) and re.search(r"^\s*[0-9]|[-+]", _TEXT.sub("", left))
  )


def alone(text: str) -> str:
  """What is in a set of one; any other text as it is."""
  found = parts(text)
  single = found and found.opening == "\\{" and len(found.items) == 1
  if found and single and "emptyset" not in found.items[0]:
    return bare(found.items[0])
  return text


def last_side(text: str) -> str:
  """What equations end on, where that is their answer; else blank.

  So it is of `2 + 3 = 5`, `f(2) = 5`, `m + n = 5` and `(x-1)(x+1) = x^2-1`; but
  `2x = 5` and `x^2 + y^2 = 5` do not say what is 5.
  """
  left, *_, value = text.split("=") if "=" in text else (text, "")
  if not value or _RELATION.search(text) or parts(text) or _CASE.search(text):
    return ""
  names = lambda side: set(_letters(side))
  plain = _SUBSCRIPT.sub("", left).strip()
  sum_of = re.split(r"\s*\+\s*", plain)
  named = _SYMBOL.fullmatch(plain) or (
    all(re.fullmatch("[a-zA-Z]", x) for x in sum_of)
    and len(set(sum_of)) == len(sum_of)
  )
  return value.strip() if named or names(left) <= names(value) else ""


def _letters(text: str) -> list[str]:
  """The letters of a formula that are no operator's."""
  return re.findall("[a-zA-Z]", _OPERATOR.sub("", _TEXT.sub("", text)))


# `S`, `f(-2)`, `f^{-1}(x)`, `\Pr(A)`
_SYMBOL = re.compile(
  r"\\?[a-zA-Z]{1,12}(?:\^\s*\{?\s*-1\s*\}?)?(?:\([^()]*\))?'*(?:\([^()]*\))?"
)
_CASE = re.compile(r"\b(?:if|when|where|for|and|or|not)\b")
_ASSIGNS = re.compile(
  r"\s*(?:[a-zA-Z](?:_(?:\w|\{\w+\}))?|[a-zA-Z]\([a-z]\))\s*=(?!=)"
)


def assigned(one: str, other: str) -> tuple[str, str]:
  """Both, without the `x =` that only one of them begins with."""
  if ("=" in one) == ("=" in other) or _RELATION.search(one + other):
    return one, other
  at = lambda text: match.end() if (match := _ASSIGNS.match(text)) else 0
  strip = lambda text: text[at(text) :].strip()
  left, right = strip(one), strip(other)
  return (one, other) if "=" in left + right else (left, right)


_CHOICE = re.compile(r"\(?([A-J])\)?[.:]?|\(([a-j])\)[.:]?")
_LABEL = re.compile(r"(?:^|\s)\(?([A-J])[).:](?=\s|$)")


def choice(text: str) -> str | None:
  """The letter of a choice, alone or before its text; None where several."""
  text = _TEXT.sub(r"\1", text).strip()
  text = re.sub(r"^(?:option|choice|answer)\s+", "", text, flags=re.IGNORECASE)
  if match := _CHOICE.fullmatch(text):
    return (match[1] or match[2]).upper()
  labels = _LABEL.findall(text)
  return labels[0] if len(labels) == 1 and _LABEL.match(text) else None


_WORD = re.compile(r"[A-Za-z]{4,}")
_SHORT = {"yes", "no"}
_MATH_WORDS = {"sqrt", "infty", "frac", "sinh", "cosh", "tanh", "infinity"}


def words(text: str) -> str | None:
  """The words of a text that has no mathematics in it, or None."""
  text = _TEXT.sub(r"\1", text)
  if text.strip().lower() in _SHORT:
    return text.strip().lower()
  named = set(_WORD.findall(text)) - _MATH_WORDS
  if re.search(r"[\\0-9=<>^+*/|_(){}\[\],]", text) or not named:
    return None
  text = " ".join(re.findall(r"[^\W\d_]+", text.casefold()))
  return text.removeprefix("the ").removeprefix("a ").removeprefix("an ")


@dataclasses.dataclass(frozen=True)
class Parts:
  """Items between brackets, or between none; `opening` is "(" for a vector."""

  opening: str
  items: tuple[str, ...]
  closing: str


_OPEN = re.compile(r"\\\{|\\langle|\\lbrace|[(\[]")
_CLOSE = re.compile(r"\\\}|\\rangle|\\rbrace|[)\]]")
_TOKEN = re.compile(
  r"\\\\|\\[{}]|\\(?:langle|rangle|lbrace|rbrace|begin|end)\b|\\.|[()\[\]{},;]",
  re.DOTALL,
)
_SAME = {
  r"\langle": "(", r"\rangle": ")", r"\lbrace": r"\{", r"\rbrace": r"\}",
}  # fmt: skip


def joined_otherwise(one: str, other: str) -> bool:
  """Whether texts join as many relations, and not by the same words."""
  left, right = (_JOINED.findall(text) for text in (one, other))
  both = _RELATION.search(one) and _RELATION.search(other)
  return bool(both) and len(left) == len(right) and left != right


def parts(text: str) -> Parts | None:
  """The items of a tuple, an interval, a set or a list; None for one item."""
  opening = closing = ""
  if (first := _OPEN.match(text)) and _closing(text) == len(text):
    opening = _SAME.get(first[0], first[0])
    last = list(_CLOSE.finditer(text))[-1]
    closing = _SAME.get(last[0], last[0])
    text = text[first.end() : last.start()]
  items = _split(text)
  if opening in ("", "\\{"):
    items = [x for item in items for x in _both(item)]
  if len(items) < 2 and opening != r"\{":
    return None
  return Parts(opening, tuple(items), closing) if all(items) else None


def _both(item: str) -> list[str]:
  r"""The two values of an item with one `\pm`; else the item."""
  if len(re.findall(r"\\pm(?![a-z])", item)) != 1 or r"\mp" in item:
    return [item]
  return [re.sub(r"\\pm(?![a-z])", sign, item) for sign in "+-"]


def _closing(text: str) -> int | None:
  """Where the bracket closes with which a text begins."""
  depth = 0
  for token in _TOKEN.finditer(text):
    depth += _step(token[0])
    if depth == 0 and _CLOSE.fullmatch(token[0]):
      return token.end()
  return None


def _step(token: str) -> int:
  """By how much a token deepens the nesting."""
  if _OPEN.fullmatch(token) or token in ("{", r"\begin"):
    return 1
  return -int(bool(_CLOSE.fullmatch(token)) or token in ("}", r"\end"))


def _split(text: str) -> list[str]:
  """The text at its commas and semicolons, those in brackets apart."""
  items, depth, start = [], 0, 0
  for token in _TOKEN.finditer(text):
    depth += _step(token[0])
    if depth == 0 and token[0] in ",;":
      items.append(text[start : token.start()].strip())
      start = token.end()
  return [*items, text[start:].strip()]
