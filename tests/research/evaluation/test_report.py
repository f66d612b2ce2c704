import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import rich.console

from research.evaluation import curves, payload, report, workdir
from research.evaluation import summary as reading
from research.evaluation.markup import Markup, tag
from tests.research.evaluation.fake_run import (
  HOSTILE,
  STUDENTS,
  lines,
  make_run,
  summary,
)

SECTIONS = ["results", "tokens", "curves", "samples", "config"]
CONFIG = {"task": "x</script>", "distill": {"steps": 3, "<i>": [1, 2]}}
VOID = {"meta", "link", "input"}


class Page(HTMLParser):
  """Every element with its attributes, the text by element, and balance."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.open, self.payloads, self.text = [], [], [], []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, name, attrs):
    self.elements.append((name, dict(attrs)))
    if name not in VOID:
      self.open.append(name)

  def handle_startendtag(self, name, attrs):
    self.elements.append((name, dict(attrs)))

  def handle_endtag(self, name):
    assert self.open.pop() == name

  def handle_data(self, data):
    name, attrs = self.elements[-1] if self.elements else ("", {})
    inside = self.open and self.open[-1] == "script" == name
    if inside and attrs.get("class") == "payload":
      self.payloads.append((attrs["data-stage"], data))
    self.text.append(data)


def render(run, folder, **changes):
  arguments = {
    "title": "a <b>title</b>",
    "config": CONFIG,
    "commit": "3f9c1e2",
    "seeds": [0, 1],
    "order": ["pretrain", "distill", "reinforce"],
  }
  path = report.write(folder / "report.html", run, **arguments | changes)
  return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def text(run, tmp_path_factory):
  return render(run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(text):
  return Page(text)


def sections(page):
  return [a["id"] for name, a in page.elements if name == "section"]


def test_the_page_is_self_contained(page, text):
  for name, attrs in page.elements:
    for key in ("src", "href", "action", "data", "srcset", "poster"):
      if key in attrs:
        assert attrs[key].startswith(("#", "data:")), (name, attrs)
    assert name not in ("iframe", "object", "embed", "img", "base"), name
    assert not any(key.startswith("on") for key in attrs), (name, attrs)
  policy = [a["content"] for _, a in page.elements if "http-equiv" in a]
  assert policy and policy[0].startswith("default-src 'none';")
  assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest", text)
  assert (
    re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"] * 2
  )


def test_the_check_of_self_containedness_can_fail(text):
  planted = Page(text.replace("</main>", '<img src="//x.y/z"></img></main>'))
  with pytest.raises(AssertionError):
    test_the_page_is_self_contained(planted, text)


def test_every_section_is_there_and_the_stages_are_in_order(page):
  assert sections(page) == SECTIONS
  words = " ".join(page.text)
  places = [words.index(f"{name} ") for name in ("pretrain", "distill")]
  assert places == sorted(places)
  assert "3f9c1e2" in words and "0, 1" in words and "512.4" in words


def test_every_sample_can_be_recovered(run, page):
  stored = dict(page.payloads)
  assert list(stored) == ["reinforce", "evaluate"]
  for name in stored:
    files = [*(run / name).glob("*/*.jsonl")]
    files.sort(key=lambda path: int("0" + re.sub(r"\D", "", path.name)))
    wanted = [
      json.loads(line) for f in files for line in f.read_text().splitlines()
    ]
    assert payload.unpack(stored[name]) == wanted


def test_model_text_cannot_leave_its_payload(page, text):
  completions = [
    s["completion"] for s in payload.unpack(dict(page.payloads)["reinforce"])
  ]
  assert completions[: len(HOSTILE)] == list(HOSTILE)
  for hostile in HOSTILE:
    assert hostile not in text
  assert "onerror" not in text
  for _, data in page.payloads:
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", data)


def test_config_title_and_metric_names_are_escaped(tmp_path):
  nasty = "<img src=x onerror=alert(1)>"
  lines(tmp_path / "s/metrics.jsonl", [{"step": 1, nasty: 1.0}])
  found = {f"{nasty}/{nasty}/pass@1": 0.5, nasty: nasty}
  (tmp_path / "summary.json").write_text(json.dumps(found))
  text = render(tmp_path, tmp_path, title=nasty, config={nasty: nasty})
  page = Page(text)
  assert not [name for name, _ in page.elements if name == "img"]
  assert text.count("&lt;img src=x") >= 5


def test_the_scripts_have_no_way_to_turn_text_into_elements(text):
  sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
  assert not re.search(sinks, text)


def test_only_what_exists_is_shown(tmp_path):
  text = render(tmp_path, tmp_path, config={})
  assert sections(Page(text)) == []
  lines(tmp_path / "distill/metrics.jsonl", [{"step": 0, "loss": 1.0}])
  assert sections(Page(render(tmp_path, tmp_path, config={}))) == ["curves"]
  lines(tmp_path / "prefer/samples/a.jsonl", [{"prompt": "a"}])
  text = render(tmp_path, tmp_path, config={})
  assert sections(Page(text)) == ["curves", "samples"]
  (tmp_path / "summary.json").write_text('{"a/pass@1": 0.5, "a/tokens": 9}')
  assert sections(Page(render(tmp_path, tmp_path))) == SECTIONS


def test_headline_forest_and_table_agree_with_the_summary(page):
  words = " ".join(page.text)
  found = summary()
  for student in STUDENTS:
    value = found[f"{student}/pass@1"]
    number = f"{value['mean']:.3f}"
    span = f"[{value['low']:.3f}, {value['high']:.3f}]"
    assert words.count(number) >= 3
    assert words.count(span) >= 3
  paired = found["hard/reinforced_minus_distilled/pass@1"]
  assert f"{paired['mean']:+.3f}" in words
  assert "hard pass@1, paired, 60 problems" in words


def test_table_fits_eighty_columns_and_loses_nothing():
  file = io.StringIO()
  console = rich.console.Console(width=80, file=file)
  console.print(reading.table(summary()))
  drawn = file.getvalue()
  assert "…" not in drawn
  value = summary()["hard/distilled/maj@8"]
  for wanted in (
    f"{value['mean']:.3f}",
    f"[{value['low']:.3f}, {value['high']:.3f}]",
    "maj@8",
    "n = 60",
    "distilled",
  ):
    assert wanted in drawn
  assert "maj@4" not in drawn


def test_lines_that_are_not_json_name_file_and_line(tmp_path):
  lines(tmp_path / "s/metrics.jsonl", [{"step": 0}])
  with (tmp_path / "s/metrics.jsonl").open("a") as file:
    file.write('{"step": 1, "lo')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not JSON"):
    workdir.stages(tmp_path)
  with pytest.raises(FileNotFoundError, match="no workdir"):
    workdir.stages(tmp_path / "nowhere")


def test_a_resumed_run_shows_each_step_once(tmp_path):
  records = [{"step": 0, "loss": 3.0}, {"step": 1, "loss": 9.0}]
  again = [{"step": 1, "loss": 2.0}, {"step": 1, "accuracy": 0.5}]
  lines(tmp_path / "s/metrics.jsonl", records + again)
  [stage] = workdir.stages(tmp_path)
  assert stage.metrics == [
    {"step": 0, "loss": 3.0},
    {"step": 1, "loss": 2.0, "accuracy": 0.5},
  ]


def test_curves_keep_extremes_and_count_what_is_not_finite():
  records = [{"step": s, "loss": 1.0} for s in range(5000)]
  records[2500]["loss"], records[7]["loss"] = 50.0, float("inf")
  drawn = curves.curve(records, "loss")
  assert len(drawn) < 40_000
  assert "1 not finite" in drawn
  assert 'class="range"' in drawn
  [(low, high)] = re.findall(r'data-ys="\[([\d.-]+), ([\d.-]+)\]"', drawn)
  assert float(low) < 1 and float(high) > 50


def test_smooth_is_a_running_mean():
  assert curves.smooth(np.arange(5.0), 3) == pytest.approx([0.5, 1, 2, 3, 3.5])
  assert curves.smooth(np.arange(5.0), 1) == pytest.approx(range(5))


def test_markup_escapes_text_and_attributes_only_once():
  inner = tag("i", "a<b", class_='x"y', data_long_name=1.50)
  assert inner == '<i class="x&quot;y" data-long-name="1.5">a&lt;b</i>'
  assert tag("p", inner) == f"<p>{inner}</p>"
  assert isinstance(inner, Markup)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_in_a_browser_the_viewer_opens_and_nothing_breaks_out(tmp_path):
  run = make_run(tmp_path / "run", samples=20_000)
  render(run, tmp_path)
  flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000"
  dumped = subprocess.run(
    ["chromium", *flags.split(), f"--user-data-dir={tmp_path}/profile",
     "--dump-dom", (tmp_path / "report.html").as_uri()],
    capture_output=True, text=True, timeout=120, check=True,
  ).stdout  # fmt: skip
  assert "<title>a &lt;b&gt;title" in dumped
  assert "of 20,160" in dumped
  assert 10 < dumped.count('class="row"') < 100
  assert "<img" not in dumped
  assert "&lt;/script&gt;&lt;img src=x" in dumped
