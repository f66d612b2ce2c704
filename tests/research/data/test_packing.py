import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import packing

PAD = 99


def make(size, prompt=1, first=1, **extras):
  """An example with ids `first`.. and mask 1 after `prompt` tokens."""
  tokens = np.arange(first, first + size, dtype=np.int32)
  mask = (np.arange(size) >= prompt).astype(np.int8)
  return {"tokens": tokens, "mask": mask, **extras}


@st.composite
def example_lists(draw):
  masks = draw(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), max_size=12)
  )
  first, out = 100, []
  for mask in masks:
    tokens = np.arange(first, first + len(mask), dtype=np.int32)
    out.append({"tokens": tokens, "mask": np.array(mask, np.int8)})
    first += len(mask)
  return out


@settings(deadline=None)
@given(example_lists(), st.integers(4, 12))
def test_every_token_lands_once_and_weights_stay_inside(examples, length):
  packed = packing.pack(examples, length)
  batch = packing.to_batch(packed.rows, length, pad=PAD)
  kept = [e for e in examples if len(e["tokens"]) <= length]
  assert packed.rejected == len(examples) - len(kept)
  real = batch.segments_BT > 0
  want = sorted(t for e in kept for t in e["tokens"].tolist())
  assert sorted(batch.tokens_BT[real].tolist()) == want
  assert (batch.tokens_BT[~real] == PAD).all()
  for array in (batch.weights_BT, batch.positions_BT):
    assert not array[~real].any()
  masks = {
    int(t): m for e in kept for t, m in zip(e["tokens"], e["mask"], strict=True)
  }
  starts = {int(e["tokens"][0]): len(e["tokens"]) for e in kept}
  for b, t in zip(*np.nonzero(real), strict=True):
    token = int(batch.tokens_BT[b, t])
    inside = t + 1 < length and (
      batch.segments_BT[b, t] == batch.segments_BT[b, t + 1]
    )
    want = masks[token + 1] if inside else 0
    assert batch.weights_BT[b, t] == want
    assert (batch.positions_BT[b, t] == 0) == (token in starts)
    if inside:
      assert batch.tokens_BT[b, t + 1] == token + 1
      step = batch.positions_BT[b, t + 1] - batch.positions_BT[b, t]
      assert step == 1


def test_first_fit_goes_back_to_earlier_rows():
  rows = packing.pack([make(5), make(6), make(3), make(4)], 8).rows
  assert [[len(e["tokens"]) for e in row] for row in rows] == [[5, 3], [6], [4]]


def test_to_batch_by_hand():
  rows = [[make(3), make(2, first=7)], [make(4, prompt=3)], []]
  batch = packing.to_batch(rows, 6, pad=PAD)
  assert batch.tokens_BT.tolist() == [
    [1, 2, 3, 7, 8, PAD],
    [1, 2, 3, 4, PAD, PAD],
    [PAD] * 6,
  ]
  assert batch.weights_BT.tolist() == [
    [1, 1, 0, 1, 0, 0],
    [0, 0, 1, 0, 0, 0],
    [0] * 6,
  ]
  assert batch.segments_BT.tolist() == [
    [1, 1, 1, 2, 2, 0],
    [1, 1, 1, 1, 0, 0],
    [0] * 6,
  ]
  assert batch.positions_BT.tolist() == [
    [0, 1, 2, 0, 1, 0],
    [0, 1, 2, 3, 0, 0],
    [0] * 6,
  ]
  assert batch.weights_BT.dtype == np.float32
  assert batch.tokens_BT.dtype == np.int32


def test_end_is_a_target_where_pad_is_end():
  end = 9
  example = {
    "tokens": np.array([4, 5, 6, end], np.int32),
    "mask": np.array([0, 1, 1, 1], np.int8),
  }
  batch = packing.to_batch([[example]], 6, pad=end)
  assert batch.tokens_BT.tolist() == [[4, 5, 6, end, end, end]]
  assert batch.weights_BT.tolist() == [[1, 1, 1, 0, 0, 0]]


def test_too_long_is_rejected_and_counted():
  example = make(24, prompt=4)
  assert packing.pack([example, make(8)], 8).rejected == 1
  with pytest.raises(ValueError, match="24 tokens, more than the length 8"):
    packing.to_batch([[example]], 8, pad=PAD)
  with pytest.raises(ValueError, match="never truncated"):
    packing.pad_rows([example], 8, pad=PAD)


def cross_entropy(batch, logits_BTV):
  """Summed over weighted predictions of the next token, in numpy."""
  targets = np.roll(batch.tokens_BT, -1, axis=1)
  peak = logits_BTV.max(-1, keepdims=True)
  norm = np.log(np.exp(logits_BTV - peak).sum(-1)) + peak[..., 0]
  said = np.take_along_axis(logits_BTV, targets[..., None], -1)[..., 0]
  return float((batch.weights_BT * (norm - said)).sum())


@pytest.mark.parametrize("packed", [True, False])
def test_shift_scores_completions_alone(packed):
  one, two = make(5, prompt=2), make(9, prompt=5, first=1)
  rows = [[one, two]] if packed else [[one], [two]]
  length = 15 if packed else 10
  batch = packing.to_batch(rows, length, pad=0)
  assert batch.weights_BT.sum() == 7
  uniform = np.zeros((*batch.tokens_BT.shape, 11))
  assert abs(cross_entropy(batch, uniform) - 16.785267) < 1e-5
  peaked = 100.0 * np.eye(11)[np.roll(batch.tokens_BT, -1, axis=1)]
  assert cross_entropy(batch, peaked) < 1e-6
  for b, t in zip(*np.nonzero(batch.segments_BT), strict=True):
    position = batch.positions_BT[b, t]
    size = (batch.segments_BT[b] == batch.segments_BT[b, t]).sum()
    tokens_BT = batch.tokens_BT.copy()
    tokens_BT[b, t] = 10
    other = cross_entropy(batch.replace(tokens_BT=tokens_BT), peaked)
    assert (other > 1) == (position >= (2 if size == 5 else 5))


def test_all_masked_example_weighs_nothing():
  batch = packing.to_batch([[make(4, prompt=4)]], 6, pad=PAD)
  assert not batch.weights_BT.any()


def test_pad_rows_shifts_predictions_and_keeps_the_rest():
  example = make(
    3,
    logprobs=np.array([0, -1.5, -2.5], np.float32),
    rewards=np.full(3, 0.5, np.float32),
    group=np.full(3, 7, np.int32),
  )
  out = packing.pad_rows(
    [
      example,
      make(
        2,
        logprobs=np.zeros(2, np.float32),
        rewards=np.ones(2, np.float32),
        group=np.full(2, 8, np.int32),
      ),
    ],
    4,
    pad=PAD,
    shifted=("mask", "logprobs"),
  )
  assert out["mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
  assert out["logprobs"].tolist() == [[-1.5, -2.5, 0, 0], [0, 0, 0, 0]]
  assert out["rewards"].tolist() == [[0.5, 0.5, 0.5, 0], [1, 1, 0, 0]]
  assert out["group"].tolist() == [[7, 7, 7, 0], [8, 8, 0, 0]]
  assert out["rewards"].dtype == np.float32
  assert set(out) == {
    "tokens",
    "mask",
    "logprobs",
    "rewards",
    "group",
    "positions",
    "segments",
  }


def test_mixed_types_are_widened_not_cut():
  ints = make(2, score=np.array([1, 2], np.int32))
  floats = make(2, score=np.array([0.5, 0.25], np.float64))
  out = packing.pad_rows([ints, floats], 2, pad=PAD)
  assert out["score"].tolist() == [[1, 2], [0.5, 0.25]]


@pytest.mark.parametrize(
  ("examples", "said"),
  [
    ([{"tokens": np.ones(3), "mask": np.ones(2)}], "of one length"),
    ([{"tokens": np.ones(0), "mask": np.ones(0)}], "not empty"),
    ([{"tokens": np.ones((2, 2)), "mask": np.ones((2, 2))}], "1-D"),
    ([make(2), make(2, extra=np.ones(2))], "examples differ"),
    ([{"tokens": np.ones(2)}], "shifted"),
  ],
)
def test_malformed_examples_raise(examples, said):
  with pytest.raises(ValueError, match=said):
    packing.pad_rows(examples, 4, pad=PAD)


def test_fill_depends_on_stream_and_position_alone():
  sizes = [3, 5, 9, 2, 4, 8, 1, 1, 6, 7, 2, 3]
  examples = [make(n, first=100 * i) for i, n in enumerate(sizes)]
  opts = {"rows": 2, "length": 8, "patience": 3}
  one = packing.fill(examples, 0, **opts)
  firsts = lambda f: [[int(e["tokens"][0]) // 100 for e in r] for r in f.rows]
  assert firsts(one) == [[0, 1], [3, 4]]  # 9 is too long, 8 opens the next
  assert (one.position, one.rejected) == (5, 1)
  two = packing.fill(examples, one.position, **opts)
  assert firsts(two) == [[5], [6, 7, 8]]
  assert (two.position, two.rejected) == (9, 0)
  assert firsts(packing.fill(examples, 5, **opts)) == firsts(two)


def test_fill_gives_up_where_nothing_fits():
  with pytest.raises(ValueError, match=r"4 examples on end .* length 8"):
    packing.fill([make(9)] * 9, 0, rows=1, length=8, patience=3)
