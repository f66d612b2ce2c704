"""TFDS builders, without TensorFlow: published sets and generated problems.

Files are prepared once into array_record under a cache, in a folder named by
their content, so that a changed file is never served from an old copy.
"""

import contextlib
import dataclasses
import fcntl
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

from research.data import readers
from research.data.readers import Row


@dataclasses.dataclass(frozen=True)
class Published:
  """A set's file by split, who publishes it, and how it is read."""

  files: dict[str, str]
  publisher: str
  rows: Callable[[pathlib.Path, str], Iterator[Row]]
  fields: tuple[str, ...] = ("question", "answer")


def _whole(file: str) -> dict[str, str]:
  """A file that holds both train and test."""
  return {"train": file, "test": file}


# None of these files lies in this project.
SETS = {
  "gsm8k": Published(
    {"train": "gsm8k/train.jsonl", "test": "gsm8k/test.jsonl"},
    "the repository openai/grade-school-math, grade_school_math/data",
    readers.gsm8k,
  ),
  "svamp": Published(
    {"test": "svamp/svamp_test.jsonl"},
    "the repository QwenLM/Qwen2.5-Math, evaluation/data/svamp",
    readers.svamp,
  ),
  "medquad": Published(
    _whole("medquad/medquad_answered.jsonl.gz"),
    "the repository abachaa/MedQuAD, a line of JSON for each answered question",
    readers.medquad,
    ("question", "answer", "source", "url"),
  ),
  "openstax": Published(
    _whole("openstax_ap2e/anatomy_physiology_2e.jsonl.gz"),
    "the repository openstax/osbooks-anatomy-physiology, a line of JSON for "
    "each module",
    readers.openstax,
    ("module", "chapter", "title", "text"),
  ),
  "pubmedqa": Published(
    {"train": "pubmedqa/pqal_train.json"},
    "the repository pubmedqa/pubmedqa, the training half of PQA-L",
    readers.pubmedqa,
    ("key", "question", "abstract", "long_answer", "answer"),
  ),
  "strategy_qa": Published(
    {"train": "cot_tasks/strategy_qa.json"},
    "the repository itsnamgyu/reasoning-teacher",
    readers.strategy_qa,
    ("question", "answer", "rationale"),
  ),
  "math": Published(
    {"train": "math/train.jsonl", "test": "math/math500.jsonl"},
    "the repositories hendrycks/math and openai/prm800k (MATH-500), a line of "
    "JSON for each problem",
    readers.math,
    ("question", "answer", "level", "subject", "worked"),
  ),
  "humaneval": Published(
    {"test": "humaneval/HumanEval.jsonl.gz"},
    "the repository openai/human-eval",
    readers.humaneval,
    ("key", "prompt", "entry", "solution", "test"),
  ),
  "mbpp": Published(
    _whole("mbpp/mbpp.jsonl"),
    "the repository google-research/google-research, mbpp",
    readers.mbpp,
    ("key", "text", "code", "setup", "tests"),
  ),
}


def _remedy(name: str) -> str:
  """How to get the files of `name` and how to point at them."""
  files = " and ".join(dict.fromkeys(SETS[name].files.values()))
  return (
    f"Get {files} from {SETS[name].publisher}, and name the folder that holds "
    "the set's own by data_dir (--config.data_dir=DIR) or by the environment "
    "variable PITH_DATA"
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


class Rows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Rows of text by split, in the order in which they are given."""

  VERSION = tfds.core.Version("1.0.0")
  code_path = None  # no checksums or metadata lie beside this module

  def __init__(
    self,
    *,
    splits: Mapping[str, Iterable[Row]],
    fields: Sequence[str],
    **kwargs,
  ):
    """Takes the rows to prepare, and what every builder takes."""
    self._splits, self._fields = splits, fields
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    features = {name: tfds.features.Text() for name in self._fields}
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is fetched
    return {
      split: self._generate_examples(rows)
      for split, rows in self._splits.items()
    }

  def _generate_examples(self, rows):
    return enumerate(rows)


def source(
  name: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> TextRows:
  """A split of a published set, by index: rows with its `fields`.

  `data_dir` holds a folder a set (None: the variable PITH_DATA says where), and
  `cache_dir` the prepared copies (None: ~/.cache/pith). Raises ValueError for
  an unknown name or split, an empty file, or a malformed line (by file and
  line), and FileNotFoundError telling how to get a file that is missing.
  """
  if name not in SETS or split not in SETS[name].files:
    known = [f"{n}/{s}" for n, told in SETS.items() for s in told.files]
    raise ValueError(f"no set {name}/{split}; there are {', '.join(known)}")
  told, root = SETS[name], _data_root(name, data_dir)
  digest = hashlib.sha256(f"{name}\n{inspect.getsource(readers)}".encode())
  rows = {}
  for part, file in told.files.items():
    path = _wanted(root / file, name)
    digest.update(path.read_bytes())
    rows[part] = _not_empty(told.rows(path, part), f"{path}, split {part!r},")
  folder = _cache_root(cache_dir) / digest.hexdigest()[:16]
  return _prepared(rows, told.fields, folder)[split]


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
  fields = ("prompt", "completion", "answer", "meta")
  return _prepared({"rows": rows}, fields, folder)["rows"]


def _problem_rows(
  task: Any, split: str, seed: int, count: int, write: str, args: dict
) -> Iterator[Row]:
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


def _not_empty[T](rows: Iterable[T], what: str) -> Iterator[T]:
  """`rows`, or a ValueError naming `what` where there are none."""
  found = False
  for row in rows:
    found = True
    yield row
  if not found:
    raise ValueError(f"{what} holds no problems")


def _prepared(
  splits: Mapping[str, Iterable[Row]],
  fields: Sequence[str],
  folder: pathlib.Path,
) -> dict[str, TextRows]:
  """The rows of each split, written as array_record on the first call.

  Processes that want one copy wait for each other; the first one writes it.
  """
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    builder = Rows(
      splits=splits,
      fields=fields,
      data_dir=folder,
      file_format="array_record",
    )
    # TFDS announces a download on standard output, and draws a bar a shard.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(download_config=config)
  return {
    split: TextRows(builder.as_data_source(split))  # pyright: ignore
    for split in splits
  }


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
