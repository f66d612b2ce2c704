r"""A worker of `pool`: whether two answers in LaTeX mean the same, by algebra.

latex2sympy reads, math-verify compares. Each reads the whole text, or nothing:
math-verify's own search for an answer takes the first number of what it cannot
read, and then `1 - 1/e` may pass for another. Run as a file, it imports nothing
of the project, so that a worker starts fast and holds no jax.
"""

import functools
import json
import os
import re
import resource
import sys
from typing import Any

BYTES = 2 << 30

_NORMAL: dict[str, Any] = {
  "basic_latex": True,
  "units": False,  # takes `3t` for 3 of a unit
  "malformed_operators": True,
  "nits": True,
  "boxed": "none",
  "equations": False,
}
_FUNCTIONS = (
  "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log"
)
_PLAIN_NAME = re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS}|pi|sqrt)(?![a-zA-Z])")
_POWER_OF_TEN = re.compile(
  r"(?<![\w.\\])([0-9]+\.?[0-9]*)[eE]([+-]?[0-9]{1,3})\b"
)
_REPEATING = re.compile(
  r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{?([0-9]+)\}?"
)
_DOTS = re.compile(r"([0-9]*)\.([0-9]*?)([0-9]{1,9}?)\3+\s*(?:\\l?dots|\.\.\.)")
_DEGREES = re.compile(r"([0-9.]+)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)")
_LOOSE_FRACTION = re.compile(r"\\frac\s*(\\[a-z]+|[0-9])\s*(\\[a-z]+|[0-9a-z])")
_ROW = r"\[[^\[\]]*\]"
_ROWS = re.compile(rf"\[\s*({_ROW}(?:\s*,\s*{_ROW})*)\s*\]")


def _repeating(match: re.Match) -> str:
  r"""`0.1\overline{6}` as an exact fraction."""
  whole, fixed, period = match.groups()
  scale, nines = 10 ** len(fixed), 10 ** len(period) - 1
  top = (int(whole or 0) * scale + int(fixed or 0)) * nines + int(period)
  return rf"\frac{{{top}}}{{{scale * nines}}}"


def _matrix(match: re.Match) -> str:
  """`[[1, 2], [3, 4]]` as LaTeX writes it."""
  rows = re.findall(r"\[([^\[\]]*)\]", match[1])
  inside = r"\\".join(row.replace(",", "&") for row in rows)
  return rf"\begin{{pmatrix}}{inside}\end{{pmatrix}}"


def spelled(text: str) -> str:
  """LaTeX of what is partly LaTeX, partly as a program would print it."""
  text = _ROWS.sub(_matrix, text.replace("**", "^"))
  text = _LOOSE_FRACTION.sub(r"\\frac{\1}{\2}", text)
  text = _DOTS.sub(_repeating, _REPEATING.sub(_repeating, text))
  text = _POWER_OF_TEN.sub(r"\1\\cdot 10^{\2}", text)
  text = _PLAIN_NAME.sub(r"\\\1 ", text)
  text = re.sub(r"\\sqrt\s+(?=[({])", r"\\sqrt", text)
  text = _rooted(text)
  if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)\b", text):
    text = _DEGREES.sub(r"{\\frac{\1\\pi}{180}}", text)
  return text


def _rooted(text: str) -> str:
  r"""`\sqrt(3(x+1))` with braces, its parentheses matched."""
  start = text.find(r"\sqrt(")
  while start >= 0:
    depth, at = 0, start + 5
    for at in range(start + 5, len(text)):
      depth += {"(": 1, ")": -1}.get(text[at], 0)
      if depth == 0:
        break
    if depth:
      break
    text = f"{text[: start + 5]}{{{text[start + 6 : at]}}}{text[at + 1 :]}"
    start = text.find(r"\sqrt(", start)
  return text


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Any:
  """The sympy object that the whole of a text means; None where it is none."""
  from latex2sympy2_extended import latex2sympy2
  from math_verify import parser

  config = latex2sympy2.NormalizationConfig(**_NORMAL)
  latex = latex2sympy2.normalize_latex(spelled(text), config=config)
  try:
    read = parser.parse_latex_cached(latex)
  except MemoryError:
    raise
  except Exception:
    return None
  return read


def same(gold: str, answer: str) -> bool | None:
  """Whether two texts mean the same; None where one of them is not read."""
  from math_verify import grader

  one, other = _read(gold), _read(answer)
  if one is None or other is None:
    return None
  verify = functools.partial(grader.verify, timeout_seconds=None)
  if verify(one, other):
    return not _far_apart(one, other)
  pairs = [(_over_complex(one), _over_complex(other))]
  wanted = _as_set(one, gold)
  # An interval is asked for as one: no inequality is put in its place.
  if wanted is not one and len({*_variables(one), *_variables(other)}) == 1:
    pairs += [(wanted, _as_set(other, answer))]
  return any(pair != (one, other) and verify(*pair) for pair in pairs)


def _variables(read: Any) -> set[str]:
  """The names of what stands for a number."""
  return {str(symbol) for symbol in getattr(read, "free_symbols", ())}


def _far_apart(one: Any, other: Any) -> bool:
  """Whether two numbers differ by more than a rounding of their own size."""
  try:
    a, b = complex(one.doit()), complex(other.doit())
  except (TypeError, ValueError, AttributeError, OverflowError):
    return False
  return abs(a - b) > 1e-5 * max(abs(a), abs(b))


def _over_complex(read: Any) -> Any:
  """The value over complex variables, `i` being the imaginary unit."""
  import sympy

  if not isinstance(read, sympy.Expr):
    return read
  symbols: set[Any] = read.free_symbols
  plain: Any = {s: sympy.Symbol(str(s)) for s in symbols}
  plain |= {s: sympy.I for s in plain if str(s) == "i"}
  return read.subs(plain).doit()


def _as_set(read: Any, text: str) -> Any:
  """The set that inequalities in one variable describe."""
  import sympy
  from math_verify import grader

  relations: Any = read.args if isinstance(read, sympy.FiniteSet) else [read]
  if not all(map(grader.is_relation, relations)) or grader.is_equation(read):
    return read
  if len(relations) > 1 and not re.search(r"\bor\b", text):
    return read
  try:
    parts = [relation.as_set() for relation in relations]
  except (NotImplementedError, AttributeError, TypeError, ValueError):
    return read
  return sympy.Union(*parts) if len(parts) > 1 else parts[0]


def main() -> None:
  """Says that it is ready, then answers until the input ends."""
  resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
  import logging

  logging.disable()
  out = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # what a library prints is no answer
  same("x^2", "x\\cdot x")  # the first one builds the parser's tables
  print("ready", file=out, flush=True)
  for line in sys.stdin:
    gold, answer = json.loads(line)
    try:
      said = {"same": same(gold, answer)}
    except (MemoryError, RecursionError) as error:
      said = {"beyond": type(error).__name__}
    except Exception as error:
      said = {"error": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(said), file=out, flush=True)


if __name__ == "__main__":
  main()
