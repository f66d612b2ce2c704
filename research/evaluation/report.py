"""report.html: one self-contained file with a run's results and samples.

Style, script, drawings and samples are all inside; a content security policy
forbids the page to fetch anything. Whatever came from a model, a config or a
log passes through `markup.tag` or `payload.pack`, so it stays text.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from research.evaluation import curves, payload, plots, summary, workdir
from research.evaluation.markup import Markup, join, tag
from research.evaluation.summary import Row
from research.evaluation.workdir import Stage

HERE = Path(__file__).parent


def write(
  path: Path,
  directory: Path,
  *,
  title: str,
  config: Mapping[str, Any],
  commit: str,
  seeds: Sequence[int],
  order: Sequence[str] = (),
) -> Path:
  """Writes the report of the run in `directory` to `path` and returns it.

  `config` is the resolved configuration, `order` the names of the stages in
  the order they ran; a section appears where there is something to show.
  Raises as `workdir.stages` does.
  """
  found = workdir.summary(directory)
  stages = workdir.stages(directory, order)
  facts = {
    "commit": commit,
    "seeds": ", ".join(map(str, seeds)),
    **{summary.words(n): _fact(v) for n, v in summary.facts(found).items()},
  }
  path.write_text(
    page(title, facts, config, summary.rows(found), stages), encoding="utf-8"
  )
  return path


def page(
  title: str,
  facts: Mapping[str, str],
  config: Mapping[str, Any],
  rows: Sequence[Row],
  stages: Sequence[Stage],
) -> str:
  """The whole page as text."""
  sections = {
    "Results": _results(rows),
    "Tokens": _tokens(rows),
    "Curves": _curves(stages),
    "Samples": _samples(stages),
    "Config": _config(config),
  }
  shown = {name: body for name, body in sections.items() if body}
  links = [tag("a", name, href=f"#{name.lower()}") for name in shown]
  bodies = [
    tag("section", body, id=name.lower()) for name, body in shown.items()
  ]
  return Template(_read("report.html")).substitute(
    title=join(title),
    style=_read("report.css"),
    script=_read("report.js") + _read("viewer.js"),
    links=join(*links),
    facts=_facts(facts),
    headline=_headline(rows),
    sections=join(*bodies),
  )


def _read(name: str) -> str:
  return (HERE / name).read_text(encoding="utf-8")


def _fact(value: Any) -> str:
  if isinstance(value, int | float):
    return summary.number(value)
  return value if isinstance(value, str) else json.dumps(value)


def _facts(facts: Mapping[str, str]) -> Markup:
  cells = [
    tag("div", tag("dt", name), tag("dd", value))
    for name, value in facts.items()
  ]
  return tag("dl", *cells, class_="facts")


def _headline(rows: Sequence[Row]) -> Markup:
  """One large number a student and a paired difference: pass@1."""
  rated = [row for row in rows if "pass@1" in row.metrics]
  home = [r for r in rated if r.suite == summary.HOME and not r.difference]
  shown = home + [row for row in rated if row.difference]
  colour = plots.colours(rows)
  tiles = [_tile(row, colour.get(row.student, "clear")) for row in shown]
  return tag("div", *tiles, class_="tiles") if tiles else Markup()


def _tile(row: Row, colour: str) -> Markup:
  value, signed = row.metrics["pass@1"], row.difference
  count = summary.problems(row)
  words = ["pass@1"] if row.suite == summary.HOME else [f"{row.suite} pass@1"]
  words += ["paired"] if signed else []
  words += [] if count is None else [f"{count:,} problems"]
  drawing = plots.change if signed else plots.bar
  return tag(
    "div",
    tag("h3", summary.label(row.student)),
    tag("p", summary.number(summary.mean(value), signed=signed), class_="big"),
    tag("p", summary.span(value, signed=signed), class_="span"),
    drawing(value, colour),
    tag("p", ", ".join(words), class_="note"),
    class_="tile",
  )


def _results(rows: Sequence[Row]) -> Markup:
  if not rows:
    return Markup()
  students = [row for row in rows if not row.difference]
  every = summary.metrics(rows)
  chief = summary.chief(every)
  names = [n for n in chief if _is_rate(n)]
  colour = plots.colours(rows)
  forests = [
    _panel(suite, plots.forest(group, names, colour))
    for suite, group in _suites(students)
    if any(name in row.metrics for row in group for name in names)
  ]
  forests += _differences([row for row in rows if row.difference])
  note = (
    "Bars are 95 % intervals over problems (Wilson where each problem is a "
    "plain yes or no, else a bootstrap). pass@k is the unbiased estimate, "
    "maj@k the vote of k samples. Lenient takes any plausible answer from the "
    "text, strict the task's own format alone. Samples that the grader "
    "failed on are excluded and counted, never scored as zero. Wrong tokens "
    "are the lengths of wrong samples, of problems that both sides got wrong."
  )
  return join(
    tag("h2", "Results"),
    tag("div", *forests, class_="panels"),
    tag("div", _table(rows, chief), class_="scroll"),
    tag("p", note, class_="note"),
    _folded("every metric", _table(rows, every)) if every != chief else "",
  )


def _differences(rows: Sequence[Row]) -> list[Markup]:
  """A panel a unit: rates together, and every other metric by itself."""
  names = summary.metrics(rows)
  units = {n: "rates" if _is_rate(n) else summary.words(n) for n in names}
  return [
    _panel(
      f"paired differences, {unit}",
      plots.differences(rows, [n for n in names if units[n] == unit]),
    )
    for unit in dict.fromkeys(units.values())
  ]


def _is_rate(name: str) -> bool:
  return plots.RATE.fullmatch(name) is not None


def _suites(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
  names = dict.fromkeys(row.suite for row in rows)
  return [(name, [r for r in rows if r.suite == name]) for name in names]


def _panel(name: str, body: Markup) -> Markup:
  return tag("figure", tag("figcaption", name), body, class_="panel")


def _folded(words: str, body: Markup) -> Markup:
  scroll = tag("div", body, class_="scroll")
  return tag("details", tag("summary", words), scroll)


def _table(rows: Sequence[Row], names: Sequence[str]) -> Markup:
  colour = plots.colours(rows)
  head = [tag("th", summary.words(name), scope="col") for name in names]
  first = tag("th", "student", scope="col")
  groups = [
    tag(
      "tbody",
      tag("tr", tag("th", suite, colspan=len(names) + 1, class_="suite")),
      *[_line(row, names, colour) for row in group],
    )
    for suite, group in _suites(rows)
  ]
  return tag("table", tag("thead", tag("tr", first, *head)), *groups)


def _line(row: Row, names: Sequence[str], colour: Mapping[str, str]) -> Markup:
  dot = tag("i", class_=f"dot {colour.get(row.student, 'none')}")
  cells = [_cell(row, name) for name in names]
  head = tag("th", dot, summary.label(row.student), scope="row")
  return tag("tr", head, *cells)


def _cell(row: Row, name: str) -> Markup:
  if name not in row.metrics:
    return tag("td")
  value, signed = row.metrics[name], row.difference
  number = tag("b", summary.number(summary.mean(value), signed=signed))
  return tag("td", number, tag("small", summary.span(value, signed=signed)))


def _tokens(rows: Sequence[Row]) -> Markup:
  colour = plots.colours(rows)
  drawn = [(suite, plots.cost(group, colour)) for suite, group in _suites(rows)]
  panels = [_panel(suite, plot) for suite, plot in drawn if plot is not None]
  if not panels:
    return Markup()
  keys = [
    tag("span", tag("i", class_=f"dot {c}"), summary.label(name))
    for name, c in colour.items()
  ]
  kinds = [
    tag("span", tag("i", class_=f"stroke {kind}"), words)
    for kind, words in (("pass", "pass@k"), ("maj", "maj@k"))
  ]
  return join(
    tag("h2", "Accuracy against tokens spent"),
    tag("p", *keys, *kinds, class_="legend"),
    tag("div", *panels, class_="panels"),
  )


def _curves(stages: Sequence[Stage]) -> Markup:
  parts = [_stage(stage) for stage in stages if stage.metrics]
  if not parts:
    return Markup()
  note = "thin: as logged, thick: running mean over a twentieth of the steps"
  return join(
    tag("h2", "Training curves"), tag("p", note, class_="note"), *parts
  )


def _stage(stage: Stage) -> Markup:
  first, others = curves.names(stage.metrics)
  grid = lambda names: tag(
    "div", *[curves.curve(stage.metrics, n) for n in names], class_="curves"
  )
  last = stage.metrics[-1]["step"]
  heading = tag(
    "h3",
    summary.label(stage.name),
    tag("small", f"{len(stage.metrics):,} records to step {last:,}"),
  )
  if not others:
    return join(heading, grid(first))
  more = tag("summary", f"{len(others)} more")
  return join(heading, grid(first), tag("details", more, grid(others)))


def _samples(stages: Sequence[Stage]) -> Markup:
  logged = [stage for stage in stages if stage.samples]
  if not logged:
    return Markup()
  scripts = [
    # Base64 needs no escaping, and a script element's text is not unescaped.
    tag(
      "script",
      Markup(payload.pack(stage.samples)),
      type="application/octet-stream",
      class_="payload",
      data_stage=stage.name,
    )
    for stage in logged
  ]
  count = sum(len(stage.samples) for stage in logged)
  viewer = Template(_read("viewer.html")).substitute(count=f"{count:,}")
  return join(tag("h2", "Samples"), Markup(viewer), *scripts)


def _config(config: Mapping[str, Any]) -> Markup:
  if not config:
    return Markup()
  lines = [
    tag("div", tag("dt", name), tag("dd", value))
    for name, value in _flat(config, "")
  ]
  return join(tag("h2", "Configuration"), tag("dl", *lines, class_="config"))


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
  if isinstance(value, Mapping) and value:
    pairs = [(f"{name}.{k}" if name else str(k), v) for k, v in value.items()]
    return [line for key, inner in pairs for line in _flat(inner, key)]
  return [(name, value if isinstance(value, str) else json.dumps(value))]
