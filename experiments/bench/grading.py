"""How fast answers are graded, and whether any text upsets the grader.

python -m experiments.bench.grading [--fuzz=1000000] [--seed=0] [--out=FILE.md]

The first table is gradings a second over two processes: plain numbers, which
need no algebra, and pairs that do. With --fuzz that many texts are made from
the corpus of tests/golden/grading by a seeded mutator, and graded; what breaks
a rule is told, with the text, and the program fails. The rules: nothing raises;
nothing takes more than a second of a core (algebra: its limit); a text
equals itself; equality without algebra is the same both ways, but for an
equation, which answers the value that it ends on; no code is compiled, no file
opened, no process started by a text.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import pathlib
import random
import sys
import time
from collections.abc import Iterator

from absl import app, flags

from experiments.bench import _table
from research.grading import blocks, equality, expression, extract
from research.rewards import form, language

_FUZZ = flags.DEFINE_integer("fuzz", 0, "How many texts to make.")
_SEED = flags.DEFINE_integer("seed", 0, "What the mutator is seeded by.")

FOLDER = pathlib.Path("tests/golden/grading")
FLOOR = 5000  # gradings of plain numbers a second
ALGEBRA, SECONDS = 200, 1.0  # one text in so many is given to the workers
LATE = 1.0
TOKENS = (
  "\\boxed{", "\\frac{", "\\sqrt", "\\text{", "\\left(", "\\right)", "}", "{",
  "^", "_", "$", "%", "\\%", "#### ", "<answer>", "</answer>", "<!--", "-->",
  "The answer is ", "(", ")", "[", "]", ",", ";", "\\{", "\\}", "=", "<", "+",
  "-", "/", "*", "**", ".", "\\\\", "&", "0", "1", "9", "e", "i", "x", "\n",
  " ", "\\pi", "\\infty", "\\cup", "\\pm", "cm", "nan", "\u0665", "\uff15",
  "\u2212", "\u00bd", "\u00b2", "\u200b", "<think>", "</think>", "`" * 3,
  "\\text{a} ", "\\mathrm{m}", "\\cdot",
)  # fmt: skip
UNICODE = (*range(0xD800), *range(0xE000, 0x110000))  # all but surrogates
# What a text could only bring about by being run.
DEEDS = {
  "compile", "exec", "open", "os.system", "os.exec", "os.fork", "import",
  "subprocess.Popen", "socket.connect", "ctypes.dlopen", "os.remove",
}  # fmt: skip


def mutated(text: str, rng: random.Random, corpus: list[str]) -> str:
  """A text after a few changes, some of which bring in others of the corpus."""
  for _ in range(rng.randrange(5)):
    at = rng.randrange(len(text) + 1)
    to = min(len(text), at + rng.randrange(8))
    change = rng.randrange(7)
    if change == 0:
      text = text[:at] + text[to:]
    elif change == 1:
      text = text[:at] + rng.choice(TOKENS) + text[at:]
    elif change == 2:
      text = text[:at] + rng.choice(corpus) + text[to:]
    elif change == 3:
      text = text[:to] + text[at:to] * rng.randrange(4) + text[to:]
    elif change == 4:
      text = text[:at] + chr(rng.choice(UNICODE)) + text[to:]
    elif change == 5:
      text = f"\\boxed{{{text}}}"
    elif rng.random() < 0.01:
      text = text[:at] + rng.choice(TOKENS) * rng.randrange(20_000) + text[at:]
  return text


class Watch:
  """Counts what is done while `on`; an audit hook is there for good."""

  def __init__(self) -> None:
    self.on, self.deeds = False, []
    sys.addaudithook(self._hear)

  def _hear(self, event: str, args: tuple) -> None:
    if self.on and event in DEEDS:
      self.deeds.append(f"{event}{args}"[:200])


def _read(text: str) -> None:
  """All that rewards read a text by; `blocks.program` alone compiles it."""
  extract.final_answer(text)
  for read in (extract.strict, extract.tagged, extract.lenient, blocks.fenced):
    read(text)
  expression.parse(text)
  for bonus in (form.bonus, language.bonus):
    bonus(text)


def faults(text: str, other: str, watch: Watch) -> Iterator[str]:
  """The rules that grading two texts without algebra breaks."""
  start = time.thread_time()
  watch.on = True
  try:
    _read(text)
    said = equality.stated(text), equality.stated(other)
    own = equality.plainly(text, text)
    there, back = equality.plainly(text, other), equality.plainly(other, text)
  except Exception as error:
    yield f"raises {type(error).__name__}: {error}"
    return
  finally:
    watch.on = False
  if own is not True and text.strip():
    yield "is not equal to itself"
  # An equation answers its value, and not the other way.
  one, two = ("=" in answer for answer in said)
  one_way = (there and two and not one) or (back and one and not two)
  if None not in (there, back) and there != back and not one_way:
    yield f"is equal one way only to {other!r}"
  if (taken := time.thread_time() - start) > LATE:
    yield f"takes {taken:.1f} s"
  yield from watch.deeds
  watch.deeds.clear()


def by_workers(pairs: list[tuple[str, str]], count: dict) -> Iterator[str]:
  """The rules that grading pairs with algebra breaks; counts the verdicts."""

  def timed(pair: tuple[str, str]) -> tuple[str, float]:
    start = time.perf_counter()
    kind = equality.grade(*pair, seconds=SECONDS).kind
    return kind, time.perf_counter() - start

  with concurrent.futures.ThreadPoolExecutor(1) as threads:
    graded = threads.map(timed, pairs)
    for pair, (kind, taken) in zip(pairs, graded, strict=True):
      count[kind] += 1
      # A killed worker's successor starts within the next question's time.
      if kind == "error" or taken > 30:
        yield f"{kind} after {taken:.1f} s on {pair!r}"


def fuzz(texts: int, seed: int) -> tuple[list[str], str]:
  """The rules broken, by text, and a sentence on what was done."""
  corpus = [json.loads(line) for line in (FOLDER / "corpus.jsonl").open()]
  rows = [json.loads(x) for x in (FOLDER / "equivalence.jsonl").open()]
  corpus += [text for row in rows for text in row[1:] if text.strip()]
  rng, watch = random.Random(seed), Watch()
  broken: list[str] = []
  count: dict[str, int] = collections.Counter()
  start, hard = time.perf_counter(), []
  for n in range(texts):
    base = rng.choice(corpus)
    text = mutated(base, rng, corpus)
    found = faults(text, base, watch)
    broken += [f"{text[:200]!r} {fault}" for fault in found]
    if n % ALGEBRA == 0:
      hard.append((base, text))
    if n % 100_000 == 99_999:
      print(f"{n + 1} texts, {len(broken)} faults", flush=True)
  cheap = time.perf_counter() - start
  broken += by_workers(hard, count)
  whole = time.perf_counter() - start
  kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(count.items()))
  return broken, (
    f"{texts:,} texts in {whole:.0f} s ({cheap:.0f} s without algebra), seed "
    f"{seed}; {len(hard):,} of them through the workers ({kinds}); "
    f"{len(broken)} broke a rule."
  )


def _numbers(count: int) -> float:
  """Seconds that one process takes to grade `count` plain numbers."""
  rng = random.Random(0)
  spell = ("{}", "{:,}", "{}.0", "${}$", r"\boxed{{{}}}", r"\frac{{{}}}{{7}}")
  numbers = [rng.randrange(-(10**6), 10**6) for _ in range(count)]
  pairs = [(str(n), rng.choice(spell).format(n)) for n in numbers]
  start = time.perf_counter()
  for gold, answer in pairs:
    equality.grade(gold, answer)
  return time.perf_counter() - start


def speeds() -> list[str]:
  """The lines of the table of gradings a second."""
  count = 50_000
  start = time.perf_counter()
  with concurrent.futures.ProcessPoolExecutor(
    2, mp_context=multiprocessing.get_context("spawn")
  ) as processes:
    list(processes.map(_numbers, (100, 100)))  # both have started
    start = time.perf_counter()
    list(processes.map(_numbers, (count, count)))
  plain = 2 * count / (time.perf_counter() - start)
  rows = [json.loads(x) for x in (FOLDER / "equivalence.jsonl").open()]
  pairs = [(gold, answer) for _, gold, answer in rows]
  hard = [pair for pair in pairs if equality.plainly(*pair) is None]
  equality.grades(hard[:20])  # the workers have started
  start = time.perf_counter()
  equality.grades(hard)
  algebra = len(hard) / (time.perf_counter() - start)
  return [
    "| answers | gradings a second | floor |",
    "| --- | --- | --- |",
    f"| plain numbers, two processes | {plain:,.0f} | {FLOOR:,} |",
    f"| {len(hard)} pairs by algebra, {equality.WORKERS} workers | "
    f"{algebra:,.0f} | |",
  ]


def main(argv: list[str]) -> None:
  """Prints the table or what fuzzing found, and writes it where asked."""
  del argv
  broken: list[str] = []
  if _FUZZ.value:
    broken, told = fuzz(_FUZZ.value, _SEED.value)
    lines = [told, *(f"- {fault}" for fault in broken[:50])]
  else:
    lines = speeds()
  print("\n".join(lines))
  _table.keep(lines)
  sys.exit(bool(broken))


if __name__ == "__main__":
  app.run(main)
