"""Documents that bring whatever a loss listens to, however rows are packed."""

import importlib
import pkgutil
import typing

import numpy as np

import research.losses
from research.types import Dense, Features, Sampled, Spans, Sparse, Written

MODULES = {
  m.name: importlib.import_module(f"research.losses.{m.name}")
  for m in pkgutil.iter_modules(research.losses.__path__)
}
LENGTHS = (5, 8) * 4
V, C = 8, 3
FEATURES = ("hidden", "q", "k", "v")


def unembeddings(tokens=V):
  """A student's over V tokens and a teacher's over `tokens`: V4 and V6."""
  rng = np.random.default_rng(99)
  return rng.normal(size=(V, 4)), rng.normal(size=(12, 6))[:tokens]


def draws(seed, n, scale=1.0):
  """What n tokens hold, by name; nothing of it depends on where they stand."""
  rng = np.random.default_rng(seed)
  p = np.sort(rng.dirichlet(np.ones(C + 1), n))[:, ::-1]
  ids = np.argsort(rng.random((n, V)))[:, :C]
  return {
    "hidden": scale * rng.normal(size=(n, 4)),
    "teacher": scale * rng.normal(size=(n, 6)),
    "features": scale * rng.normal(size=(n, len(FEATURES), 4)),
    "theirs": scale * rng.normal(size=(n, len(FEATURES), 6)),
    "targets": rng.integers(0, V, n),
    "logprobs": -scale * rng.uniform(0.5, 3, n),
    "ids": ids,
    "best": scale * np.log(p[:, :C]),
    "tail": scale * np.log(p[:, C]),
    "weights": np.zeros(n),
    "spans": np.zeros(n, int),
    "segments": np.zeros(n, int),
    "order": np.full(n, -1),
  }


def document(i):
  """Document i: a prompt's token, then spans of at most two, then the end."""
  n = LENGTHS[i]
  held = draws(i, n)
  inner = slice(1, n - 1)
  held["weights"][inner] = np.random.default_rng(100 + i).uniform(0.5, 1, n - 2)
  held["spans"][inner] = 1 + np.arange(n - 2) // 2
  held["logprobs"] = held["logprobs"][held["spans"]]  # one of a span's tokens
  held["order"] = 100 * i + np.arange(n)
  return held


def packed(rows, T, left=0):
  """{name: [B, T, ...]} of documents by row, after `left` tokens of garbage.

  What lies between and behind documents is loud and weighs nothing, and so is
  the target of a document's last token, which has no successor.
  """
  garbage = draws(1000, len(rows) * T, scale=5.0)
  split = lambda x: x.reshape(len(rows), T, *x.shape[1:])
  held = {name: split(x) for name, x in garbage.items()}
  for b, row in enumerate(rows):
    at = left
    for k, i in enumerate(row):
      told = document(i)
      told["segments"] += k + 1
      told["spans"] += (told["spans"] > 0) * held["spans"][b].max()
      last = at + LENGTHS[i] - 1
      told["targets"][-1] = held["targets"][b, last]
      for name, x in told.items():
        held[name][b, at : last + 1] = x
      at = last + 1
  return held


def learned(rows, unembed):
  """What gradients are taken of."""
  return {
    "hidden": rows["hidden"],
    "features": rows["features"],
    "unembed": unembed,
  }


def told(module, own, rows, theirs, softcap=None, **args):
  """(sum, denominator, metrics) of a loss that hears the signal it wants."""
  teacher = Dense(rows["teacher"], theirs, softcap)
  targets, segments = rows["targets"], rows["segments"]
  layers = lambda x: {name: x[None, :, :, i] for i, name in enumerate(FEATURES)}
  signals = (
    teacher,
    Sampled(targets, rows["logprobs"]),
    Sparse(rows["ids"], rows["best"], rows["tail"]),
    Written(teacher, targets, segments),
    Spans(targets, rows["spans"], rows["logprobs"]),
    Features(
      layers(own["features"]), layers(rows["theirs"]), targets, segments
    ),
  )
  wanted = typing.get_type_hints(module.loss)["signal"]
  signal = {type(x): x for x in signals}[wanted]
  student = Dense(own["hidden"], own["unembed"], softcap)
  return module.loss(student, signal, rows["weights"], **args)
