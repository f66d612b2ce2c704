"""Runs the chat template of a checkpoint: jinja2, sandboxed, in a child.

A template is a program from outside. jinja2's sandbox keeps it away from
Python; its time and memory only an operating system can bound, so a child
process renders, which holds nothing, opens nothing and may be killed.
"""

import datetime
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, ClassVar

import jinja2
from jinja2 import ext, nodes, sandbox

SECONDS, BYTES, CHARACTERS = 10.0, 1 << 30, 1 << 24
# What stands between these two was written in a `{% generation %}` block.
# Unicode keeps both, and their neighbours, for such internal use.
OPENED, CLOSED = "\ufdd0", "\ufdd1"
# Templates that ask for the date get one, so that ids are the same tomorrow;
# Llama's names this day where it is told none.
TODAY = datetime.datetime(2024, 7, 26)


class _Generation(ext.Extension):
  """The tag `{% generation %}`: marks what the assistant wrote."""

  tags: ClassVar = {"generation"}

  def parse(self, parser: Any) -> list[nodes.Node]:
    """Puts the two marks around the block."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    mark = lambda text: nodes.Output([nodes.TemplateData(text)], lineno=line)
    return [mark(OPENED), nodes.Scope(body, lineno=line), mark(CLOSED)]


def _refuse(message: str) -> None:
  """What templates know as `raise_exception`."""
  raise jinja2.TemplateError(message)


def _tojson(
  value, ensure_ascii=False, indent=None, separators=None, sort_keys=False
):
  """JSON for a model to read: jinja's own filter escapes it for HTML."""
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
  """The template, in the environment that published ones are written for."""
  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, ext.loopcontrols],
  )
  environment.filters["tojson"] = _tojson
  environment.globals["raise_exception"] = _refuse
  environment.globals["strftime_now"] = TODAY.strftime
  return environment.from_string(source)


def _text(template: jinja2.Template, variables: dict[str, Any]) -> str:
  """One rendering, given up when it grows out of all proportion."""
  blocks, size = [], 0
  for block in template.generate(variables):
    size += len(block)
    if size > CHARACTERS:
      raise MemoryError(f"more than {CHARACTERS} characters")
    blocks.append(block)
  return "".join(blocks)


def _serve() -> None:
  """The child: a line of JSON in, a line of JSON out, until the input ends."""
  import resource  # absent where there is no such limit to set

  resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
  for line in sys.stdin:
    source, calls = json.loads(line)
    try:
      template = _compiled(source)
      said = {"texts": [_text(template, variables) for variables in calls]}
    except Exception as error:
      said = {"error": f"{type(error).__name__}: {error}".rstrip(": ")[:300]}
    print(json.dumps(said), flush=True)


_LOCK = threading.Lock()  # one question at a time


@functools.cache
def _child(parent: int) -> subprocess.Popen:
  """The child of the process `parent`; a fork must not share its pipes."""
  return subprocess.Popen(
    [sys.executable, "-I", __file__],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    env={},  # no secret of the parent's
    start_new_session=True,  # Ctrl-C is the parent's to handle
  )


def _ask(child: subprocess.Popen, question: bytes, seconds: float) -> bytes:
  """The child's line; b"" where it ended, TimeoutError where it is late."""
  assert child.stdin and child.stdout
  try:
    child.stdin.write(question)
    child.stdin.flush()
  except BrokenPipeError:
    return b""
  if not connection.wait([child.stdout.fileno()], seconds):
    raise TimeoutError
  return child.stdout.readline()


def render(
  source: str,
  calls: Sequence[dict[str, Any]],
  *,
  seconds: float = SECONDS,
) -> list[str]:
  """Renders a template once for each dict of variables.

  Raises ValueError, saying what the template did, where it fails, reaches for
  what is not its own, or takes more than `seconds`, BYTES or CHARACTERS.
  """
  question = json.dumps([source, list(calls)]).encode() + b"\n"
  with _LOCK:
    child = _child(os.getpid())
    try:
      line = _ask(child, question, seconds)
      if not line:
        raise ValueError("ended its process; it may take too much memory")
    except BaseException as error:
      child.kill()  # else its late answer would be taken for the next one's
      child.communicate()
      _child.cache_clear()
      if isinstance(error, TimeoutError):
        raise ValueError(f"did not end within {seconds:g} s") from None
      raise
  said = json.loads(line)
  if "error" in said:
    raise ValueError(f"failed: {said['error']}")
  return said["texts"]


if __name__ == "__main__":
  _serve()
