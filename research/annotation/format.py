"""The form of a trace: finished, thinking marked once or not at all, length."""

from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.types import Trace

OPEN, CLOSE = "<think>", "</think>"


def sift(
  traces: Sequence[Trace],
  about: About,
  *,
  shortest: int = 1,
  longest: int | None = None,
) -> Sifted:
  """Keeps finished traces of `shortest` to `longest` of the student's tokens.

  Thinking stands in front, between one `<think>` and one `</think>`, and an
  answer behind it; without thinking there are no marks.
  """

  def judge(trace: Trace) -> Reason | None:
    text = trace.text or ""
    if trace.finish != "stop":
      return Reason("cut off")
    if fault := _thinking(text):
      return Reason(fault)
    size = len(about.tokenizer.encode(text))
    if size < shortest:
      return Reason("too short", f"{size} tokens")
    if longest is not None and size > longest:
      return Reason("too long", f"{size} tokens")
    return None

  return gates.split(traces, judge)


def _thinking(text: str) -> str | None:
  """What is wrong with the marks of thinking."""
  if OPEN not in text and CLOSE not in text:
    return None
  before, _, rest = text.partition(OPEN)
  thought, closed, answer = rest.partition(CLOSE)
  if before.strip() or not closed or OPEN in thought:
    return "thinking not marked once"
  if OPEN in answer or CLOSE in answer:
    return "thinking not marked once"
  return None if answer.strip() else "no answer behind the thinking"
