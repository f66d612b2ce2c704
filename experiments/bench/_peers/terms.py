"""What Pith and its peers share when they are timed: sizes, and how to answer.

Each runs in an environment of its own, so nothing beyond NumPy is imported.
"""

import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

PROMPTS, GROUP, PROMPT, NEW = 2, 8, 32, 96  # GROUP answers to each of PROMPTS
STOP, PAD = 259, 260  # of the byte tokenizer beside the checkpoint
OPTIMIZER = {"learning_rate": 1e-4, "b1": 0.9, "b2": 0.95, "eps": 1e-8}
CLIP, NORM = 0.2, 1.0  # of the ratio, on both sides; of the gradient
WHOLE = "whole"  # the step that samples its rollout too


def arguments() -> tuple[pathlib.Path, dict[str, np.ndarray] | None]:
  """Returns the checkpoint's folder, and the rollout to learn from, if any."""
  folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
  if name == WHOLE:
    return folder, None
  with np.load(folder / f"{name}.npz") as arrays:
    return folder, dict(arrays)


def asked() -> list[str]:
  """Returns the prompts of the step that samples, one an answer."""
  line = "What is {} and {}, and what is left?"
  texts = [line.format(i, i + 7)[:PROMPT].ljust(PROMPT) for i in range(PROMPTS)]
  return [text for text in texts for _ in range(GROUP)]


def reward(text: str) -> float:
  """Returns what an answer earns: nonsense, but it differs in a group."""
  return len(set(text)) / NEW


def serve(step: Callable[[], float], *packages: str) -> None:
  """Says what it is made of, then takes a step for each line that comes in.

  The answer to a line is JSON: the step's loss, its seconds and those of all
  its threads. Whatever else the libraries print goes to stderr.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  made = [f"{name} {importlib.metadata.version(name)}" for name in packages]
  print(json.dumps(", ".join(made)), file=answers, flush=True)
  for _ in sys.stdin:
    start, busy = time.perf_counter(), time.process_time()
    told = {"loss": step()}
    told["seconds"] = time.perf_counter() - start
    told["cpu"] = time.process_time() - busy
    print(json.dumps(told), file=answers, flush=True)
