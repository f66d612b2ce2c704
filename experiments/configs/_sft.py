"""Fine-tuning on a published teacher's traces: what those recipes share.

On disk are a checkpoint, `config.base.directory`, and under `config.data_dir`
the traces, `traces.jsonl` (`messages`, or `prompt` and `completion`), and
GSM8K's `gsm8k/test.jsonl` to be measured on, which no trace may hold. `:test`
needs neither.

Sources count steps of so many examples, one a row. Here rows are packed, so
that traces shorter than a row come round more often in as many steps: divide
`loop.steps` by the examples a row, which `learned_tokens` in the log tells.
"""

from typing import Any

from ml_collections import ConfigDict

CHAIN = "research.tasks.chain"
GSM8K = "research.tasks.gsm8k"


def clean(path: Any, asked: dict[str, Any], count: int) -> dict[str, Any]:
  """The traces of a file that hold nothing of the problems to be asked."""
  return {
    "stage": "experiments.stages.corpus",
    "path": path,
    "gates": [{"name": "research.annotation.decontaminate"}],
    "held_out": [{"problems": asked, "count": count}],
  }


def recipe(
  arg: str,
  model: dict[str, Any],
  optimizer: dict[str, Any],
  *,
  batch: int,
  length: int,
  steps: int,
) -> ConfigDict:
  """Returns base -> student -> evaluation; "test" shrinks it to seconds."""
  config = ConfigDict()
  config.seed, config.data_dir = 0, ""
  loss = {"name": "research.losses.supervised", "args": {}}
  student = {"stage": "experiments.stages.distill", "optimizer": optimizer}
  student |= {"loss": loss}
  if arg == "test":
    return _small(config, student)
  folder = config.get_ref("data_dir")
  config.base = base = ConfigDict({"directory": ""})
  base.stage = "experiments.stages.checkpoint"
  config.tokenizer = base.get_ref("directory")
  usual = {"dtype": "bfloat16", "remat": "everything"}
  config.model = model | usual | {"context": length}
  config.mesh = {"data": 1, "fsdp": 8, "tensor": 1, "context": 1}
  args = ConfigDict({"data_dir": folder})
  asked = {"task": GSM8K, "split": "test", "args": args}
  config.traces = ConfigDict(clean(folder + "/traces.jsonl", asked, 1319))
  config.student = student | {
    "start": "base",
    "corpora": [{"path": "{traces}/corpus.jsonl"}],
    "rows": batch,
    "length": length,
    "shards": 8,
    "microbatches": batch // 8,
    "loop": {"steps": steps, "save_every": 100},
  }
  config.evaluate = _evaluate(asked, count=1319, new_tokens=length - 512)
  config.stages = ("base", "traces", "student", "evaluate")
  return config


def _small(config: ConfigDict, student: dict[str, Any]) -> ConfigDict:
  """The same optimizer on a few traces that a solver writes."""
  config.tokenizer = "bytes"
  config.model = {"preset": "tiny", "width": 32, "layers": 1}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  config.annotate = {
    "stage": "experiments.stages.annotate",
    "problems": {"task": CHAIN, "split": "train"},
    "count": 64,
    "teacher": "research.teachers.solver",
  }
  asked = {"task": CHAIN, "split": "test"}
  config.traces = clean("{annotate}/traces.jsonl", asked, 4)
  config.student = student | {
    "corpora": [{"path": "{traces}/corpus.jsonl"}],
    "rows": 4,
    "length": 96,
    "shards": 1,
    "loop": {"steps": 4, "save_every": 4},
  }
  config.evaluate = _evaluate(asked, count=4, new_tokens=32)
  config.stages = ("annotate", "traces", "student", "evaluate")
  return config


def _evaluate(
  problems: dict[str, Any], count: int, new_tokens: int
) -> dict[str, Any]:
  """As R1 was: temperature 0.6, top-p 0.95, pass@1 over samples."""
  suite = {"prefix": "", "problems": problems, "new_tokens": new_tokens}
  return {
    "stage": "experiments.stages.evaluate",
    "students": ["student"],
    "suites": [suite | {"count": count}],
    "samples": 4,
    "ks": [1, 4],
    "pairs": [],
    "rows": 64,
    "temperature": 0.6,
    "top_p": 0.95,
  }
