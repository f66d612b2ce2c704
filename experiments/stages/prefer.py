"""Preference optimisation: of two answers to a prompt, one is preferred.

The reference is the stage that the student starts from, and is never trained.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import files, loop, pools, settings, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Run, Stage
from research import sharding
from research.data import jsonl, packing, text
from research.models.config import Lora
from research.training import objectives, optimizers
from research.types import Pairs, TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """A step is `rows` pairs of the JSONL file `pairs`, of `length` tokens each.

  A line has `prompt`, `chosen` and `rejected`; `{stage}` at the path's head
  stands for that stage's folder. Each answer has a row to itself. A pair's beta
  is that of its `gap` among `betas`, or without these its own `beta`, if any.
  With `lora` only adapters over `start` are trained, and `base_bits` may hold
  what is beneath them, the reference too, in few bits.
  """

  run: Run
  start: Stage
  pairs: str
  loss: Plugin
  rows: int
  length: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  betas: dict[str, float] = dataclasses.field(default_factory=dict)
  microbatches: int = 1
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on steps that cannot be cut as asked."""
    if self.rows < 1:
      raise ValueError(f"prefer: rows is {self.rows}; at least 1 is wanted")
    student.check_rows(self, self.rows, self.length)
    student.check(self)


class Pair(NamedTuple):
  """Two answers behind one prompt; `beta` is None where none is told."""

  chosen: packing.Example
  rejected: packing.Example
  beta: float | None


def _beta(
  betas: dict[str, float], record: jsonl.Record, place: str
) -> float | None:
  """Returns a pair's beta; ValueError naming the place of one that is none."""
  beta = record.get("beta")
  if betas:
    gap = record.get("gap")
    if gap not in list(betas):
      raise ValueError(
        f"{place}: the gap {gap!r} is none of those that have a beta, "
        f"{sorted(betas)}: set betas, or leave them out"
      )
    beta = betas[gap]
  if beta is None:
    return None
  if type(beta) not in (int, float) or not 0 < beta < math.inf:
    raise ValueError(f"{place}: the beta {beta!r} is no number above 0")
  return float(beta)


def _pair(
  config: Config, tokenizer: text.Tokenizer, record: jsonl.Record, place: str
) -> Pair:
  """Returns a line's pair; ValueError naming its place where it is none."""
  names = ("prompt", "chosen", "rejected")
  prompt, *answers = (jsonl.field(record, name, place) for name in names)
  chosen, rejected = (
    text.example(tokenizer, {"prompt": prompt, "completion": answer})
    for answer in answers
  )
  if np.array_equal(chosen["tokens"], rejected["tokens"]):
    raise ValueError(
      f"{place}: `chosen` and `rejected` are the same: there is nothing to "
      "prefer; leave the pair out"
    )
  return Pair(chosen, rejected, _beta(config.betas, record, place))


def read(config: Config, inputs: dict[str, Any]) -> tuple[list[Pair], int]:
  """Returns the pairs that fit, and how many were too long.

  Raises:
    ValueError: a line is no pair, some pairs alone have a beta, or none fits.
  """
  tokenizer = settings.load_tokenizer(config.run)
  path = files.located(config.pairs, inputs)
  found = [_pair(config, tokenizer, r, place) for place, r in jsonl.lines(path)]
  if not found:
    raise ValueError(f"{path} holds no pairs")
  if len({pair.beta is None for pair in found}) > 1:
    raise ValueError(f"{path}: some pairs have a beta and others have none")
  longest = lambda p: max(map(packing.size_of, (p.chosen, p.rejected)))
  fitting = [pair for pair in found if longest(pair) <= config.length]
  if not fitting:
    raise ValueError(
      f"{path}: none of {len(found)} pairs fits {config.length} tokens, the "
      f"shortest takes {min(map(longest, found))}: raise length"
    )
  return fitting, len(found) - len(fitting)


def lay_out(taken: Sequence[Pair], length: int, pad: int) -> Pairs:
  """Returns pairs a row each, without the reference's log-probabilities."""
  chosen, rejected = (
    packing.to_batch([[example] for example in side], length, pad=pad)
    for side in zip(*((p.chosen, p.rejected) for p in taken), strict=True)
  )
  beta_BT: Any = None
  if taken[0].beta is not None:
    beta_B1 = np.array([[pair.beta] for pair in taken], np.float32)
    beta_BT = np.where(chosen.segments_BT > 0, beta_B1, np.float32(0))
  return Pairs(chosen, rejected, beta_BT=beta_BT)


def _reference(config: Config, mesh: Mesh) -> Callable[[Any, Pairs], Pairs]:
  """Returns f(params, pairs): what the reference says of them is filled in."""

  @jax.jit
  def refer(params: Any, pairs: Pairs) -> Pairs:
    say = lambda rows: (
      objectives.score(config.run.model, params, rows, mesh=mesh).logprobs_BT
    )
    return dataclasses.replace(
      pairs,
      ref_chosen_BT=say(pairs.chosen),
      ref_rejected_BT=say(pairs.rejected),
    )

  return refer


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns how many pairs there were, and too long."""
  mesh, frozen = student.make_mesh(config), None
  pad = settings.load_tokenizer(config.run).pad
  pairs, too_long = read(config, inputs)
  refer = _reference(config, mesh)
  if config.lora is None:
    frozen = student.read_only(config, inputs, config.start, None, mesh)

  def draw(state: TrainState, step: int) -> tuple[Pairs, dict]:
    taken = pools.of_step(pairs, config.run.seed, step, config.rows)
    rows = lay_out(taken, config.length, pad)
    real = (rows.chosen.segments_BT > 0).sum()
    real += (rows.rejected.segments_BT > 0).sum()
    fill = (float(real), 2.0 * config.rows * config.length)
    # Beneath adapters lies the reference itself.
    held = state.frozen if config.lora is None else state.frozen[0]
    return refer(held, sharding.place(rows, mesh)), {"fill": fill}

  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  objective = objectives.preference(student.decoder(config), loss, mesh=mesh)
  student.train(config, inputs, workdir, objective, draw, frozen=frozen)
  told = {"pairs": len(pairs), "too_long": too_long}
  return told | student.adapters(config)
