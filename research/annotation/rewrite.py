"""Traces too long or too short for a student are written anew by a teacher.

The rethinker of CRV (Cai et al. 2025, 2504.09802), with length for difficulty:
small students learn from traces that leave nothing out and lead nowhere else.
"""

from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.teachers import answers
from research.teachers.answers import Messages
from research.types import Trace


def sift(
  traces: Sequence[Trace], about: About, *, shortest: int, longest: int
) -> Sifted:
  """Keeps traces of `shortest` to `longest` tokens of the student's.

  The others are rewritten once, and dropped unless they fit and are correct
  then. Figures are how many were asked for and how many came to fit. Raises
  ValueError for no lengths at all, and where `about.reply` is None.
  """
  if not 0 < shortest <= longest:
    raise ValueError(f"rewrite: nothing has {shortest} to {longest} tokens")
  size = lambda trace: len(about.tokenizer.encode(trace.text or ""))

  def unfit(trace: Trace) -> str | None:
    if size(trace) > longest:
      return "too long"
    return "too short" if size(trace) < shortest else None

  asked = {
    i: _question(trace, size(trace), shortest, longest)
    for i, trace in enumerate(traces)
    if unfit(trace)
  }
  told = gates.ask(about, asked)
  now = [
    answers.of_answer(t, told[i]) if i in told else t
    for i, t in enumerate(traces)
  ]
  reasons: dict[int, Reason] = {}
  for i in asked:
    if i not in told:
      reasons[i] = Reason("unanswered")
    elif why := unfit(now[i]):
      reasons[i] = Reason(f"still {why}", f"{size(now[i])} tokens")
    elif why := gates.wrong(about.task, now[i]):
      reasons[i] = Reason(f"rewritten: {why.name}", why.detail)
  kept = [trace for i, trace in enumerate(now) if i not in reasons]
  dropped = [(now[i], reason) for i, reason in reasons.items()]
  figures = {"asked": len(asked), "rewritten": len(asked) - len(reasons)}
  return Sifted(kept, dropped, figures)


def _question(trace: Trace, size: int, shortest: int, longest: int) -> Messages:
  """Asks for other words; a teacher counts words better than tokens."""
  per_token = len((trace.text or "").split()) / size
  if size > longest:
    how = "more briefly, without detours and repetition, in at most"
    bound = int(longest * per_token)
  else:
    how = "in more detail, every step explained, in at least"
    bound = int(shortest * per_token) + 1
  return answers.question(
    f"Problem:\n{trace.problem.prompt}\n\nA correct solution:\n{trace.text}\n\n"
    f"Write it anew, {how} {max(bound, 1)} words. End with the answer in the "
    "same form, and write nothing but the solution."
  )
