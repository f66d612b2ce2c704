"""The shapes that TPU kernels are compiled at; how often their parts run."""

import dataclasses

from tests.compile.bundles import Region

CHIPS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}


@dataclasses.dataclass(frozen=True)
class Case:
  """One call of attention; `packed` gives it segments.

  T is the length, and that of the cache for `decode`, one token of 8 rows, and
  `page`, 2048 ragged tokens of 32 sequences over pages of that many tokens. A
  `ring` lies on four chips; `traced` are a window and an offset.
  """

  T: int
  H: int
  K: int = 8
  G: int = 1
  causal: bool = True
  window: int | None = None
  packed: bool = False
  back: bool = False
  decode: bool = False
  page: int | None = None
  held: str | None = None  # the pages' dtype, if it is not the queries'
  softcap: float | None = None
  traced: bool = False
  ring: bool = False
  dtype: str = "bfloat16"

  @property
  def name(self) -> str:
    """What the case is called in tables."""
    part = "backward" if self.back else "forward"
    part += "-causal" if self.causal else "-full"
    part = "decode" if self.decode else part
    part = f"ragged-page{self.page}" if self.page else part
    part = f"ring-{part}" if self.ring else part
    part += f"-{self.held}" if self.held else ""
    part += "-softcap" if self.softcap else ""
    part += "-traced" if self.traced else ""
    part += "" if self.dtype == "bfloat16" else f"-{self.dtype}"
    part += f"-window{self.window}" if self.window else ""
    part += "-packed" if self.packed else ""
    heads = f"{self.K * self.G}over{self.K}"
    return f"{part}-T{self.T}-H{self.H}-{heads}"


def _both(*cases: Case) -> list[Case]:
  twice = lambda c: [c, dataclasses.replace(c, back=True)]
  return [case for c in cases for case in twice(c)]


FEW = _both(
  Case(4096, 128),
  Case(4096, 128, causal=False),
  Case(4096, 64, K=2, G=4, window=1024),
  Case(4096, 256, K=2, packed=True),
)
CACHES = [
  Case(4096, 64, K=2, G=4, decode=True),
  Case(32_768, 128, G=4, decode=True),
  Case(32_768, 128, G=4, window=4096, decode=True),
  Case(8192, 256, K=2, G=4, decode=True),
  Case(8192, 128, G=4, page=16),
  Case(32_768, 64, K=2, G=4, page=16),
  Case(32_768, 256, K=2, G=4, page=64, held="int8"),
]
MANY = _both(
  Case(1024, 128),
  Case(1024, 128, causal=False),
  Case(4096, 64),
  Case(4096, 64, causal=False),
  Case(4096, 256),
  Case(4096, 256, causal=False),
  Case(4096, 128, K=2, G=4),
  Case(4096, 128, K=1, G=8),
  Case(16_384, 128),
  Case(16_384, 128, causal=False),
  Case(32_768, 64, K=1, G=4, packed=True),
  Case(32_768, 128, K=1, G=4),
  Case(32_768, 128, K=1, G=4, window=4096),
  Case(32_768, 256, K=1, G=2),
)
KINDS = [
  *_both(
    Case(4096, 128, softcap=50.0),
    Case(4096, 128, K=2, G=4, traced=True),
    Case(4096, 128, dtype="float32"),
    Case(16_384, 128, ring=True),
  ),
  Case(4096, 128, G=4, decode=True, softcap=50.0),
  Case(4096, 128, G=4, decode=True, dtype="float32"),
  Case(8192, 128, K=32, page=16),
  Case(8192, 128, G=4, page=16, held="float8_e4m3fn"),
  Case(8192, 64, K=2, G=4, page=64, held="int8", softcap=50.0),
  Case(8192, 128, G=4, page=64, dtype="float32"),
]


def tiles(case: Case, q: int, kv: int) -> tuple[int, int]:
  """Returns (inner, edge) tiles of one head: wholly visible, and partly."""
  inner = edge = 0
  for low in range(0, case.T, q):
    for first in range(0, case.T, kv):
      high, last = low + q - 1, first + kv - 1
      live, whole = True, True
      if case.causal:
        live, whole = live and first <= high, whole and last <= low
      if case.window:
        live = live and last > low - case.window
        whole = whole and first > high - case.window
      inner, edge = inner + (live and whole), edge + (live and not whole)
  return inner, edge


def pipeline(case: Case, q: int, kv: int, heads: int) -> dict[str, int]:
  """Returns how often each part of a grid over live tiles runs.

  `heads` is how many heads the grid has: a kernel that serves a whole group of
  queries at once has K, one that takes them apart K * G.
  """
  inner, edge = tiles(case, q, kv)
  steps = heads * (inner + edge)
  rows = heads * -(-case.T // (kv if case.back else q))
  return {
    "loop": steps + 2,
    "step": steps,
    "row": rows,
    "edge": heads * edge,
    "inner": heads * inner,
  }


def ours(case: Case, q: int, kv: int, tree: Region) -> list[int] | None:
  """Returns the runs of each counted region of `kernels.attention_tpu`.

  None where the mask is known only when it runs: such a case is compiled, and
  has no cost. The products stand in the bodies, first that of the mask's edges;
  the start of a row comes first in a step, its end is the longest part behind
  the bodies. All else, what moves dq foremost, counts as if every step took it.
  """
  if case.packed or case.traced or case.ring:
    return None
  runs = pipeline(case, q, kv, case.K)
  regions = tree.counted()
  step = next((r for r in regions[1:] if r.matmuls), None)
  if step is None:  # one step: no loop around it, and no runs to tell apart
    return [case.G if r.kind == "loop" else 1 for r in regions]
  parts = [r for r in regions if step.start < r.start < step.end]
  bodies = [r for r in parts if r.matmuls]
  last = max(
    (r for r in parts if r.start >= bodies[-1].end and r.kind == "if"),
    key=lambda r: r.own,
  )
  named = {id(regions[0]): "loop", id(parts[0]): "row", id(last): "row"}
  kinds = ["edge", "inner"] if case.causal or case.window else ["inner"]
  for body, kind in zip(bodies, kinds, strict=True):
    named[id(body)] = kind
  copies = lambda r: case.G if r.kind == "loop" else 1
  other = lambda r: copies(r) * runs["loop" if r.start < step.start else "step"]
  return [runs[named[id(r)]] if id(r) in named else other(r) for r in regions]


def peers(case: Case, block: int) -> list[int]:
  """Returns the runs of each counted region of tokamax's splash attention."""
  runs = pipeline(case, block, block, case.K * case.G)
  bodies = ["inner", "edge"] if case.causal or case.window else []
  names = ["loop", "step", "row", *bodies, "row"]
  return [runs[name] for name in names]
