"""Arithmetic too long for the head, and a calculator that can be asked.

    user       48*37-905       what is to be computed
    assistant  calc 48*37      a call: one expression over whole numbers
    user       1776
    assistant  calc 1776-905
    user       871
    assistant  #### 871

The difficulty is the number of operations. The calculator reads by the grammar
of research.grading.expression: nothing is ever evaluated.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from research import splits
from research.grading import equality, expression, extract
from research.types import Problem, Turn

LENGTHS = {"train": (1, 3), "test": (1, 3), "ood": (4, 5)}
CALLS = 8  # more than any problem needs
_CALL = re.compile(r"calc ([^\n]*)\Z")


@dataclasses.dataclass(frozen=True)
class State:
  """A problem, and how often the calculator was used, and in vain."""

  problem: Problem
  calls: int = 0
  failed: int = 0


def problems(
  split: str, seed: int, lengths: Sequence[int] | None = None
) -> Iterator[Problem]:
  """Chains of lo..hi operations without end; `lengths=(lo, hi)`.

  By default those of `LENGTHS[split]`. Raises ValueError on an unknown split
  and on lengths out of order.
  """
  splits.check("calculator", split)
  bounds = LENGTHS[split] if lengths is None else lengths
  levels = splits.span("calculator", "lengths", bounds, least=1)
  return splits.stream("calculator", split, seed, levels, _draw)


def start(problem: Problem, seed: int) -> Turn:
  """The problem, and nothing used."""
  del seed
  return Turn(State(problem), problem.prompt)


def step(state: State, text: str) -> Turn:
  """What the calculator says to a call, or the verdict on anything else.

  After `CALLS` calls it says no more, and what has no answer is unparsed.
  """
  call = _CALL.search(text)
  if call is None or state.calls == CALLS:
    answer = extract.strict(text)
    return Turn(state, "", equality.grade_number(state.problem.answer, answer))
  read = expression.parse(call[1])
  value = None if read is None else read.value
  said = "error" if value is None else str(value)
  used = dataclasses.replace(
    state, calls=state.calls + 1, failed=state.failed + (value is None)
  )
  return Turn(used, said)


def facts(state: State) -> dict[str, Any]:
  """What an episode was like."""
  return {"calls": state.calls, "failed": state.failed}


def trace(state: State, seed: int, said: Sequence[str]) -> str:
  """What to write next where the calculator has `said` so much already."""
  del seed
  numbers = re.findall(r"[-+*]?[0-9]+", state.problem.prompt)
  left = said[-1] if said else numbers[0]
  done = len(said) + 1
  return (
    f"calc {left}{numbers[done]}" if done < len(numbers) else f"#### {left}"
  )


def _draw(rng: random.Random, operations: int) -> Problem:
  """A chain of so many operations whose values are whole and not below 0.

  Only the first may be a product: so the usual precedence reads left to right.
  """
  value = rng.randrange(10, 100)
  prompt = str(value)
  for place in range(operations):
    number = rng.randrange(10, 1000)
    signs = "+" + "-" * (value >= number) + "*" * (place == 0)
    sign = rng.choice(signs)
    after = {"+": value + number, "-": value - number, "*": value * number}
    prompt, value = f"{prompt}{sign}{number}", after[sign]
  meta = {"key": prompt, "difficulty": operations}
  return Problem(prompt, str(value), meta)
