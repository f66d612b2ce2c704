"""The cost model on a program small enough to count by hand."""

import pytest

from tests.compile import bundles, cases
from tests.compile.cases import Case


def program(body=40):
  """Between 3 and 2 bundles a loop of 20 + `body`, which skips `body`."""
  lines = ["x = 1"] * 3 + ["a /* Start region 9 */"]
  lines += ["%1 = sbr.rel (%p1) target = $region7"] + ["y"] * bundles.DELAY
  lines += ["vmatmul.bf16"] * body
  lines += ["z /* Start/End empty region 7 */"] + ["z"] * 8
  lines += ["%2 = sbr.rel (!%p2) target = $region9"] + ["y"] * bundles.DELAY
  lines += ["end"] * 2
  return "\n".join(f"0x{i:x}  LB: > {{ {x} }}" for i, x in enumerate(lines))


def test_regions():
  tree = bundles.program(program())
  loop, body = tree.counted()
  assert (tree.end, tree.own) == (65, 5)
  assert (loop.kind, loop.own, body.kind, body.own) == ("loop", 20, "if", 40)
  assert body.matmuls == 40


def test_cost_by_hand():
  tree = bundles.program(program())
  assert bundles.cost(tree, [10, 4]) == 5 + 10 * 20 + 4 * 40


def test_small_regions_count_as_taken():
  tree = bundles.program(program(body=bundles.LARGE - 1))
  assert bundles.cost(tree, [10]) == 5 + 10 * (20 + bundles.LARGE - 1)


def test_counts_must_fit():
  tree = bundles.program(program())
  with pytest.raises(ValueError, match="3 counts for the regions"):
    bundles.cost(tree, [1, 2, 3])


@pytest.mark.parametrize("text", ["", "Schedule analysis:\n total 3"])
def test_not_a_program(text):
  with pytest.raises(ValueError, match="no VLIW bundles"):
    bundles.program(text)


def test_spills():
  lines = ["vst [vmem:[#allocation9_spill]] %v1", "vst [vmem:[%s1]] %v1", "a"]
  text = "\n".join(f"0x{i:x} : {{ {x} }}" for i, x in enumerate(lines))
  assert bundles.spills(text) == 1


def test_one_step_is_not_in_a_loop():
  tree = bundles.program(
    "\n".join(f"0x{i:x} : {{ vmatmul }}" for i in range(9))
  )
  assert cases.ours(Case(256, 64, K=1), 256, 256, tree) == []
  assert bundles.cost(tree, []) == 9


@pytest.mark.parametrize(
  ("case", "expected"),
  [
    (Case(512, 64, causal=False), (16, 0)),
    (Case(512, 64), (6, 4)),
    (Case(512, 64, window=128), (0, 7)),
    (Case(512, 64, window=257), (3, 6)),
  ],
)
def test_tiles(case, expected):
  """Against every pair: 16 tiles of 128 x 128."""
  inner = edge = 0
  for low in range(0, case.T, 128):
    for first in range(0, case.T, 128):
      seen = [
        (not case.causal or s <= t)
        and (case.window is None or s > t - case.window)
        for t in range(low, low + 128)
        for s in range(first, first + 128)
      ]
      inner, edge = inner + all(seen), edge + (any(seen) and not all(seen))
  assert cases.tiles(case, 128, 128) == (inner, edge) == expected
