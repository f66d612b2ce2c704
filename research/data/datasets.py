"""TFDS builders, without TensorFlow: GSM8K and SVAMP files, generated problems.

Files are prepared once into array_record under a cache, in a folder named by
their content, so that a changed file is never served from an old copy.
"""

import contextlib
import fcntl
import functools
import hashlib
import inspect
import io
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import tensorflow_datasets as tfds

from research.data import jsonl

FILES = {
  "gsm8k": {"train": "gsm8k/train.jsonl", "test": "gsm8k/test.jsonl"},
  "svamp": {"test": "svamp/svamp_test.jsonl"},
}
# Where the files are published; none of them lies in this project.
PUBLISHERS = {
  "gsm8k": "the repository openai/grade-school-math, grade_school_math/data",
  "svamp": "the repository QwenLM/Qwen2.5-Math, evaluation/data/svamp",
}


def _remedy(name: str) -> str:
  """How to get the files of `name` and how to point at them."""
  files = " and ".join(FILES[name].values())
  return (
    f"Get {files} from {PUBLISHERS[name]}, and name the folder that holds them "
    "by data_dir (--config.data_dir=DIR) or by the environment variable "
    "PITH_DATA"
  )


class TextRows(Sequence[dict[str, str]]):
  """The rows of a prepared split, by index, as text (TFDS stores bytes)."""

  def __init__(self, rows: Sequence[Mapping[str, bytes]]):
    self._rows = rows

  def __len__(self) -> int:
    """How many rows there are."""
    return len(self._rows)

  @overload
  def __getitem__(self, index: int) -> dict[str, str]: ...
  @overload
  def __getitem__(self, index: slice) -> list[dict[str, str]]: ...
  def __getitem__(self, index):
    """One row, or a list of rows for a slice; IndexError past the end."""
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    place = range(len(self))[index]
    return {
      name: value.decode("utf-8") for name, value in self._rows[place].items()
    }


class Gsm8k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """GSM8K's official files: `question`, worked `answer` ending in `#### 24`."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = _remedy("gsm8k")
  VERSION = tfds.core.Version("1.0.0")
  code_path = None  # no checksums or metadata lie beside this module

  def _info(self) -> tfds.core.DatasetInfo:
    return _text_info(self, "question", "answer")

  def _split_generators(self, dl_manager):
    root = dl_manager.manual_dir
    return {
      split: self._generate_examples(root / file)
      for split, file in FILES["gsm8k"].items()
    }

  def _generate_examples(self, path):
    return enumerate(_gsm8k_rows(path))


class Svamp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """SVAMP in GSM8K's form: `question`, and `answer` as `#### 145`."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = _remedy("svamp")
  VERSION = tfds.core.Version("1.0.0")
  code_path = None  # no checksums or metadata lie beside this module

  def _info(self) -> tfds.core.DatasetInfo:
    return _text_info(self, "question", "answer")

  def _split_generators(self, dl_manager):
    path = dl_manager.manual_dir / FILES["svamp"]["test"]
    return {"test": self._generate_examples(path)}

  def _generate_examples(self, path):
    return enumerate(_svamp_rows(path))


class Problems(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Problems of a task with a written answer: see `problems`."""

  VERSION = tfds.core.Version("1.0.0")
  code_path = None  # no checksums or metadata lie beside this module

  def __init__(self, *, rows: Iterable[Mapping[str, str]], **kwargs):
    """Takes the rows to prepare, and what every builder takes."""
    self._rows = rows
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return _text_info(self, "prompt", "completion", "answer", "meta")

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is fetched
    return {"rows": self._generate_examples()}

  def _generate_examples(self):
    return enumerate(self._rows)


BUILDERS = {"gsm8k": Gsm8k, "svamp": Svamp}


def source(
  name: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> TextRows:
  """A split of a published set, by index: rows of `question` and `answer`.

  `data_dir` holds a folder a set (None: the variable PITH_DATA says where), and
  `cache_dir` the prepared copies (None: ~/.cache/pith). Raises ValueError for
  an unknown name or split, an empty file, or a malformed line (by file and
  line), and FileNotFoundError telling how to get a file that is missing.
  """
  if name not in FILES or split not in FILES[name]:
    known = [f"{n}/{s}" for n, splits in FILES.items() for s in splits]
    raise ValueError(f"no set {name}/{split}; there are {', '.join(known)}")
  root = _data_root(name, data_dir)
  digest = hashlib.sha256()
  for file in FILES[name].values():
    digest.update(_wanted(root / file, name).read_bytes())
  folder = _cache_root(cache_dir) / digest.hexdigest()[:16]
  return _prepared(BUILDERS[name], folder, split, manual_dir=root)


def problems(
  task: Any,
  split: str,
  *,
  seed: int,
  count: int,
  write: Literal["trace", "answer_text"] = "trace",
  cache_dir: str | os.PathLike | None = None,
  **args: Any,
) -> TextRows:
  """The first `count` problems of a task's split, with a written completion.

  Rows hold `prompt`, `completion`, `answer` and `meta` (JSON). The completion
  is the solver's trace, seeded by `seed` and the problem's key, or the answer
  alone. `args` go to `task.problems`. The copy is named by these and the task's
  own source. A file-backed split may hold fewer; none at all is a ValueError.
  """
  recipe = [task.__name__, split, seed, count, write, sorted(args.items())]
  code = inspect.getsource(inspect.getmodule(task.problems) or task)
  digest = hashlib.sha256(f"{json.dumps(recipe)}\n{code}".encode())
  rows = _not_empty(
    _problem_rows(task, split, seed, count, write, args),
    f"split {split!r} of {task.__name__}",
  )
  folder = _cache_root(cache_dir) / digest.hexdigest()[:16]
  return _prepared(functools.partial(Problems, rows=rows), folder, "rows")


def _problem_rows(
  task: Any, split: str, seed: int, count: int, write: str, args: dict
) -> Iterator[dict[str, str]]:
  """The rows of `problems`."""
  for problem in itertools.islice(task.problems(split, seed, **args), count):
    if write == "trace":
      fold = f"{seed}/{problem.meta['key']}".encode()
      token = int.from_bytes(hashlib.sha256(fold).digest()[:4], "big")
      completion = task.trace(problem, token)
    else:
      completion = task.answer_text(problem)
    yield {
      "prompt": problem.prompt,
      "completion": completion,
      "answer": problem.answer,
      "meta": json.dumps(problem.meta, sort_keys=True),
    }


def _gsm8k_rows(path: pathlib.Path) -> Iterator[dict[str, str]]:
  """The rows of an official GSM8K file."""
  for place, record in _not_empty(jsonl.lines(path), str(path)):
    answer = jsonl.field(record, "answer", place)
    if "####" not in answer:
      raise ValueError(f"{place}: `answer` does not end in `#### number`")
    yield {
      "question": jsonl.field(record, "question", place),
      "answer": answer,
    }


def _svamp_rows(path: pathlib.Path) -> Iterator[dict[str, str]]:
  """The rows of a SVAMP file, the question joined to its story."""
  for place, record in _not_empty(jsonl.lines(path), str(path)):
    number = record.get("Answer")
    if isinstance(number, bool) or not isinstance(number, int | float):
      raise ValueError(f"{place}: `Answer` must be a number")
    body = jsonl.field(record, "Body", place).rstrip()
    stop = "" if body.endswith((".", "?", "!")) else "."
    number = int(number) if number == int(number) else number
    yield {
      "question": f"{body}{stop} {jsonl.field(record, 'Question', place)}",
      "answer": f"#### {number}",
    }


def _not_empty[T](rows: Iterable[T], what: str) -> Iterator[T]:
  """`rows`, or a ValueError naming `what` where there are none."""
  found = False
  for row in rows:
    found = True
    yield row
  if not found:
    raise ValueError(f"{what} holds no problems")


def _text_info(builder, *names: str) -> tfds.core.DatasetInfo:
  """Features that are all text, in the order of the file."""
  features = {name: tfds.features.Text() for name in names}
  return tfds.core.DatasetInfo(
    builder=builder,
    features=tfds.features.FeaturesDict(features),
    disable_shuffling=True,
  )


def _prepared(
  build: Callable[..., tfds.core.GeneratorBasedBuilder],
  folder: pathlib.Path,
  split: str,
  manual_dir: pathlib.Path | None = None,
) -> TextRows:
  """The rows of `split`, written as array_record on the first call.

  Processes that want one copy wait for each other; the first one writes it.
  """
  config = tfds.download.DownloadConfig(
    manual_dir=manual_dir, try_download_gcs=False
  )
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    builder = build(data_dir=folder, file_format="array_record")
    # TFDS announces a download on standard output, and draws a bar a shard.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(download_config=config)
  return TextRows(builder.as_data_source(split))  # pyright: ignore


def _data_root(name: str, data_dir: str | os.PathLike | None) -> pathlib.Path:
  """The folder of published data; FileNotFoundError where none is named."""
  chosen = data_dir or os.environ.get("PITH_DATA")
  if not chosen:
    raise FileNotFoundError(f"no data directory is named. {_remedy(name)}")
  return pathlib.Path(chosen).expanduser()


def _wanted(path: pathlib.Path, name: str) -> pathlib.Path:
  """`path`; FileNotFoundError telling how to get it where it is missing."""
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing. {_remedy(name)}")
  return path


def _cache_root(cache_dir: str | os.PathLike | None) -> pathlib.Path:
  """The folder of prepared copies."""
  if cache_dir is None:
    return pathlib.Path.home() / ".cache" / "pith"
  return pathlib.Path(cache_dir)
