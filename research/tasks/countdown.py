"""Reach a target from some numbers, each used exactly once, with + - * /.

    prompt   make 22 from 3 5 7
    trace    7 5 3: 7-5=2
             3 2: 3+2=5 3*2=6 3-2=1 no
             7 5 3: 5*3=15
             15 7: 15+7=22 yes
             #### 5*3+7

The trace is a depth-first search that restates the numbers it holds on every
line, tries what lands near the target first, and backs out of dead ends. One
target in ten is held out of train and test altogether: those make the ood
split. The difficulty is how many numbers there are.
"""

import functools
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from research import splits
from research.grading import equality, expression, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

# Dead ends shown at each node before its way out: the search stays honest
# about failing and short enough to learn.
DEAD_ENDS = 2

# What a problem asks for: the operations of the solution that it was made of.
OPERATIONS = {"+": "plus", "-": "minus", "*": "times", "/": "over"}

_RUN = re.compile(r"[0-9(][-+*/() \t0-9×÷−·]*")


class Item(NamedTuple):
  """A number in hand, how it was made, and how tightly that binds."""

  value: int
  text: str
  binds: int = 2  # 2 a number, 1 a product, 0 a sum


class Move(NamedTuple):
  """One operation: what it makes and the numbers it leaves, largest first."""

  shown: str
  made: Item
  left: tuple[Item, ...]


def problems(
  split: str,
  seed: int,
  count: Sequence[int] = (3, 3),
  largest: int = 20,
  targets: Sequence[int] = (10, 99),
  skills: Sequence[str] | None = None,
) -> Iterator[Problem]:
  """Solvable problems without end.

  Args:
    split: train and test share their difficulty; ood has held-out targets.
    seed: of the draws.
    count: `(lo, hi)`, how many numbers, from 2 to 5.
    largest: the numbers are drawn from 1 to this.
    targets: `(lo, hi)`, the targets allowed.
    skills: the problems' skills, such as ("plus_times",); None allows all.

  Raises ValueError on an unknown split, on bounds out of order, and when a
  split has no new problem left.
  """
  splits.check("countdown", split)
  levels = splits.span("countdown", "count", count, least=2)
  wanted = splits.span("countdown", "targets", targets, least=1)
  if levels[-1] > 5 or not 1 <= largest < 1000:
    raise ValueError(
      f"countdown: count={tuple(count)} and largest={largest} must be at most "
      "5 numbers from 1 to 999"
    )
  draw = functools.partial(
    _draw, largest=largest, targets=wanted, skills=skills
  )
  return splits.stream("countdown", split, seed, levels, draw, assign)


def held_out(target: int) -> bool:
  """Whether a target is kept for ood: exactly one in each block of ten."""
  return target % 10 == splits.digest(f"countdown {target // 10}") % 10


def skill(problem: Problem) -> str:
  """The operations of the solution that it was made of: plus_times of 5*3+7.

  There may be other solutions, with others.
  """
  used = problem.answer.count
  return "_".join(
    name for sign, name in OPERATIONS.items() for _ in range(used(sign))
  )


def assign(problem: Problem) -> str:
  """The split of a problem: by its target first, then by its key."""
  if held_out(problem.meta["target"]):
    return "ood"
  return "test" if splits.assign(problem) == "test" else "train"


def trace(problem: Problem, seed: int) -> str:
  """A search that ends in a solution; the seed varies its order.

  Raises ValueError where whole positive numbers do not reach the target.
  """
  items = [Item(n, str(n)) for n in problem.meta["numbers"]]
  target, lines = problem.meta["target"], []
  rng = random.Random(f"countdown/{problem.meta['key']}/{seed}")
  found = _search(_sorted(items), target, rng, lines)
  if found is None:
    raise ValueError(f"countdown: {problem.prompt!r} has no solution")
  return "\n".join([*lines, f"#### {found.text}"])


def answer_text(problem: Problem) -> str:
  """One solution alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line reaches the target with just these numbers."""
  return _grade(problem, extract.strict(text))


def extracted(text: str) -> str | None:
  """The expression that `reward` reads, without spaces; or None."""
  answer = extract.strict(text)
  return None if answer is None else "".join(answer.split())


def lenient(problem: Problem, text: str) -> Verdict:
  """The same for any marker, or else the last expression in the text.

  An `= 22` after the expression is let pass.
  """
  found = extract.marked(text)
  if found is None:
    runs = [r for r in _RUN.findall(extract.conclusion(text)) if _binary(r)]
    found = runs[-1] if runs else None
  return _grade(problem, found and found.partition("=")[0])


def moves(items: Sequence[Item]) -> list[Move]:
  """All ways to join two of the items into a whole positive number.

  Of several that leave the same numbers, the first.
  """
  found: dict[tuple[int, ...], Move] = {}
  for i, a in enumerate(items):
    for j in range(i + 1, len(items)):
      b, rest = items[j], [*items[:i], *items[i + 1 : j], *items[j + 1 :]]
      for sign, made in _results(a, b):
        move = Move(
          f"{a.value}{sign}{b.value}={made.value}",
          made,
          _sorted([*rest, made]),
        )
        found.setdefault(_values(move.left), move)
  return list(found.values())


@functools.lru_cache(maxsize=50_000)
def reachable(values: tuple[int, ...]) -> frozenset[int]:
  """Every number that the values, largest first, can make together."""
  if len(values) == 1:
    return frozenset(values)
  items = [Item(v, "") for v in values]
  states = (_values(move.left) for move in moves(items))
  return frozenset().union(*map(reachable, states))


def _results(a: Item, b: Item) -> Iterator[tuple[str, Item]]:
  """What two items make, `a` being no smaller than `b`."""
  yield "+", Item(a.value + b.value, f"{a.text}+{b.text}", 0)
  yield "*", Item(a.value * b.value, f"{_in(a, 1)}*{_in(b, 1)}", 1)
  if a.value > b.value:
    yield "-", Item(a.value - b.value, f"{a.text}-{_in(b, 1)}", 0)
  if a.value % b.value == 0:
    yield "/", Item(a.value // b.value, f"{_in(a, 1)}/{_in(b, 2)}", 1)


def _in(item: Item, binds: int) -> str:
  """The item's text, in parentheses where it binds less tightly."""
  return item.text if item.binds >= binds else f"({item.text})"


def _values(items: Sequence[Item]) -> tuple[int, ...]:
  """The bare numbers."""
  return tuple(item.value for item in items)


def _sorted(items: Sequence[Item]) -> tuple[Item, ...]:
  """Largest first; equal ones keep their order."""
  return tuple(sorted(items, key=lambda item: -item.value))


def _search(
  items: tuple[Item, ...], target: int, rng: random.Random, lines: list[str]
) -> Item | None:
  """Searches depth first, writing what it tries to `lines`."""
  state = " ".join(str(item.value) for item in items)
  tries = moves(items)
  if len(items) == 2:
    results = [move.made.value for move in tries]
    tried = results.index(target) + 1 if target in results else len(tries)
    shown = " ".join(move.shown for move in tries[:tried])
    lines.append(f"{state}: {shown} {'yes' if target in results else 'no'}")
    return tries[tried - 1].made if target in results else None
  near = lambda move: abs(move.made.value - target) * rng.uniform(0.5, 1.5)
  failed = 0
  for move in sorted(tries, key=near):
    dead = target not in reachable(_values(move.left))
    if dead and failed == DEAD_ENDS:
      continue
    failed += dead
    lines.append(f"{state}: {move.shown}")
    found = _search(move.left, target, rng, lines)
    if found:
      return found
  return None


def _draw(
  rng: random.Random,
  count: int,
  largest: int,
  targets: range,
  skills: Sequence[str] | None,
) -> Problem:
  """Any problem of `count` numbers whose random solution hits a target."""
  for _ in range(splits.PATIENCE):
    numbers = [rng.randint(1, largest) for _ in range(count)]
    items = [Item(n, str(n)) for n in numbers]
    while len(items) > 1:
      pair = [items.pop(rng.randrange(len(items))) for _ in range(2)]
      items.append(rng.choice(list(_results(*_sorted(pair))))[1])
    if items[0].value in targets:
      problem = _problem(numbers, items[0])
      if skills is None or skill(problem) in skills:
        return problem
  raise ValueError(
    f"countdown: {count} numbers up to {largest} do not reach a target in "
    f"{targets.start}..{targets.stop - 1} by {skills or 'any skill'}; widen "
    "targets, raise largest or name other skills"
  )


def _problem(numbers: list[int], solution: Item) -> Problem:
  """The problem whose solution was just found, in its canonical order."""
  numbers, target = sorted(numbers), solution.value
  listed = " ".join(map(str, numbers))
  meta = {
    "key": f"{listed} > {target}",
    "difficulty": len(numbers),
    "numbers": numbers,
    "target": target,
  }
  return Problem(f"make {target} from {listed}", solution.text, meta)


def _grade(problem: Problem, answer: str | None) -> Verdict:
  """The verdict on an expression, in exact fractions."""
  read = expression.parse(answer) if answer else None
  if read is None:
    return equality.unparsed()
  same = list(read.numbers) == sorted(problem.meta["numbers"])
  return equality.verdict(same and read.value == problem.meta["target"])


def _binary(run: str) -> bool:
  """Whether a run of text has an operation between two numbers."""
  return bool(re.search(r"[0-9)]\s*[-+*/×÷−·]\s*[0-9(]", run))
