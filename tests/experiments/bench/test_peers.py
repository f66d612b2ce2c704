"""The comparison's own parts, and that the losses of all programs agree."""

import sys

import jax
import numpy as np
import pytest

from experiments.bench import peers
from experiments.bench._peers import terms
from research.models import config, transformer

# Answers in a process of its own, as workers do; prints what it should not.
STUB = """
import sys
sys.path.insert(0, {room!r})
import terms
losses = iter((0.5, 0.25))
def step():
  print("chatter")
  return next(losses)
terms.serve(step, "numpy")
"""


def stub(monkeypatch, tmp_path, program):
  (tmp_path / "stub.py").write_text(program.format(room=str(peers.WORKERS)))
  monkeypatch.setattr(peers, "WORKERS", tmp_path)
  monkeypatch.setattr(
    peers, "PEERS", {"Pith": ("stub.py", peers.pathlib.Path(sys.executable))}
  )


def told(first, seconds=(9.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0)):
  losses = [first] + [first / 2] * (len(seconds) - 1)
  pairs = zip(losses, seconds, strict=True)
  return peers.Timed(
    "x 1", [{"loss": a, "seconds": b, "cpu": 2 * b} for a, b in pairs]
  )


def test_the_longest_answer_is_always_there():
  drawn = peers.lengths(24)
  assert drawn.max() == terms.NEW and 24 <= drawn.min() < terms.NEW
  assert len(drawn) == peers.ANSWERS
  assert (peers.lengths(terms.NEW) == terms.NEW).all()


def test_the_floor_counts_every_matrix():
  """Six a weight of a layer and token, by the parameters' own shapes."""
  shapes = transformer.abstract(peers.MODEL)
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  matrices = sum(
    x.size for path, x in leaves if path[-2].key in config.MATRICES
  )
  lengths = np.array([3, 5])
  tokens = 2 * terms.PROMPT + 8
  unembed = 8 * peers.MODEL.vocab * peers.MODEL.width
  pairs = ((terms.PROMPT + lengths) ** 2).sum() * 4 * 256
  floor = 6 * (matrices * tokens + unembed + pairs)
  found = peers.work(lengths)
  assert floor <= found < 1.005 * floor  # norms and biases
  assert peers.work(lengths, sampled=True) == found * 4 / 3


def test_a_rollout_is_clipped_on_both_sides():
  params = transformer.init(peers.MODEL, jax.random.key(0))
  drawn = peers.drawn(params, peers.lengths(24))
  live = drawn["mask"] > 0
  assert (live[:, :-1] >= live[:, 1:]).all()  # padding is behind
  assert ((drawn["answers"] == terms.PAD) == ~live).all()
  groups = drawn["advantages"].reshape(terms.PROMPTS, terms.GROUP)
  np.testing.assert_allclose(groups.mean(1), 0, atol=1e-6)
  whole = np.concatenate([drawn["prompts"], drawn["answers"]], axis=1)
  ratio = np.exp(peers.own_logprobs(params, whole) - drawn["old"])[live]
  for beyond in (ratio < 1 - terms.CLIP, ratio > 1 + terms.CLIP):
    assert 0.05 < beyond.mean() < 0.3


def test_rewards_differ_in_a_group():
  assert terms.reward("abc") != terms.reward("aab")
  assert len(terms.asked()) == peers.ANSWERS
  assert {len(prompt) for prompt in terms.asked()} == {terms.PROMPT}


def test_a_line_has_what_was_told():
  (ours, theirs) = peers.lines(
    "full",
    {"Pith": told(0.1), "TRL": told(0.2, (1.0, 1.0, 1.0, 1.0, 6.0, 6.0, 6.0))},
    floor=1.5,
  )
  cells = [cell.strip() for cell in ours.split("|")[2:-1]]
  assert cells == [
    *("Pith", "3000", "2000 to 4000", "6000", "1.00", "1500", "50%"),
    *("0.0", "0.10000000", "0.05000000"),
  ]
  assert "| 2.00 |" in theirs
  (sampled,) = peers.lines(terms.WHOLE, {"Pith": told(0.1)}, floor=1.5)
  assert "0.10000000" not in sampled  # of other samples, so nothing to compare


def test_compilation_is_told_apart():
  spent = told(0.1, (30.0, 21.0, 1.0, 1.0, 1.0, 1.0, 1.0))
  assert spent.compiling == 49.0 and np.median(spent.seconds) == 1.0


def test_losses_that_differ_are_seen():
  same = {"Pith": told(0.1), "TRL": told(0.1)}
  assert peers.apart(same) == 0
  assert peers.apart(same | {"Tunix": told(0.1 * (1 + 2e-5))}) > peers.AGREE


def test_an_answer_is_json_whatever_is_printed(monkeypatch, tmp_path):
  stub(monkeypatch, tmp_path, STUB)
  with peers.running("Pith", tmp_path, "full") as process:
    assert peers.heard("Pith", process, tmp_path).startswith("numpy ")
    for loss in (0.5, 0.25):
      process.stdin.write("\n")
      process.stdin.flush()
      assert peers.heard("Pith", process, tmp_path)["loss"] == loss


def test_a_program_that_breaks_off_is_named(monkeypatch, tmp_path):
  stub(monkeypatch, tmp_path, "raise SystemExit('out of luck')")
  with pytest.raises(RuntimeError, match=r"Pith broke off:\nout of luck"):
    peers.timed(tmp_path, "full", 1)


def test_the_callers_settings_of_jax_stay_behind(monkeypatch):
  monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "raise")
  monkeypatch.setenv("XLA_FLAGS", "--xla_odd=1")
  found = peers.environment()
  assert not {"JAX_NUMPY_RANK_PROMOTION", "XLA_FLAGS"} & set(found)
  assert found["JAX_PLATFORMS"] == "cpu"


@pytest.mark.slow
def test_the_losses_of_all_programs_agree(tmp_path):
  """One step from given tokens, and three updates later."""
  absent = [name for name, (_, p) in peers.PEERS.items() if not p.exists()]
  if len(absent) > 1:
    pytest.skip(f"no {' and no '.join(absent)}: make oracle peers")
  found = peers.timed(peers.synthesise(tmp_path), "ragged", 0)
  assert found["Pith"].told[0]["loss"] != found["Pith"].told[3]["loss"]
  assert peers.apart(found) < peers.AGREE
  assert peers.apart(found, 3) < 10 * peers.AGREE
