"""HTML and SVG elements that are escaped by construction.

A plain str is text and is escaped; only `Markup` passes as it is. So text
from a model, a config or a metric's name cannot become an element.
"""

import html


class Markup(str):
  """Text that is already HTML."""

  __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Markup:
  """One element: `tag("b", "x < y")` is `<b>x &lt; y</b>`.

  In attribute names a trailing underscore is dropped and the others become
  hyphens. A value of None leaves the attribute out.
  """
  pairs = "".join(
    f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"'
    for key, value in attributes.items()
    if value is not None
  )
  return Markup(f"<{name}{pairs}>{join(*children)}</{name}>")


def void(name: str, **attributes: object) -> Markup:
  """An element without children, such as `<path d="..."/>`."""
  opening = tag(name, **attributes)
  return Markup(opening.removesuffix(f"></{name}>") + "/>")


def join(*children: str) -> Markup:
  """Children in a row, escaping those that are plain text."""
  return Markup(
    "".join(
      child if isinstance(child, Markup) else html.escape(child)
      for child in children
    )
  )


def _plain(value: object) -> str:
  # Coordinates to a hundredth: finer digits only make the file longer.
  if isinstance(value, float):
    return f"{value:.2f}".rstrip("0").rstrip(".")
  return str(value)
