"""The form that R1-Zero asks for: one thought between marks, then an answer."""


def bonus(
  text: str, *, opening: str = "<think>", closing: str = "</think>"
) -> float:
  """Returns 1 for a text of one marked thought and an answer behind it, else 0.

  Each mark is there once, the first at the text's head; neither the thought nor
  what follows it is empty. What a template writes of it counts as written.
  """
  text = text.strip()
  if (text.count(opening), text.count(closing)) != (1, 1):
    return 0.0
  thought, _, answer = text.partition(closing)
  held = thought.startswith(opening) and thought.removeprefix(opening).strip()
  return float(bool(held and answer.strip()))
