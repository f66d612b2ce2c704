"""Static cost of a Mosaic TPU kernel, from what libtpu's compiler writes.

libtpu's final dump is the VLIW program itself: numbered bundles, one a cycle
when nothing stalls, and branches between them. The model, the same for our
kernels and for a peer's:

1. A backward branch makes a loop, a forward branch a conditional region; they
   nest. The DELAY bundles behind a branch always run.
2. cost = sum over regions of (bundles that belong to the region itself) x
   (times the region runs, over the whole grid).
3. A region runs as often as the one around it unless it is a loop or, inside
   of one, has LARGE bundles of its own. How often those run follows from the
   grid and from the mask alone: the pipeline's loop runs once a grid step and
   twice more to fill and drain, a tile's body once for each tile that is live,
   the start and the end of a row of tiles once a row. A kernel's own table
   (tests/compile/cases.py) gives these counts in program order; one that does
   not fit the program is an error, so a schedule cannot change unnoticed.
4. Small regions (starts of and waits for DMA) count as always taken. Where a
   chip has two cores, the count is of both together.

Not modelled: stalls on DMA and on a busy MXU (so that a count may lie below the
products' own cycles at the chip's peak, by 14 % at H = 256, backward), the time
a grid step needs beyond its bundles, and what XLA runs around the kernel
(transposes, padding). Against published v5p
and v6e times of one peer's kernel this count is right within 14 %; kernels of
very small tiles are underestimated, so it flatters them.
"""

import dataclasses
import re

DELAY = 4
LARGE = 12
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?\s*:")
_BRANCH = re.compile(r"sbr\.rel (?:\((!?%p\w+)\) )?target = \$region(\d+)")
_START = re.compile(r"Start(?:/End empty)? region (\d+)")
_SPILL = re.compile(r"(?:vld|vst)[^;]*_spill")


@dataclasses.dataclass
class Region:
  """Bundles [start, end) and the regions inside; a loop or a conditional."""

  kind: str
  start: int
  end: int
  inside: list["Region"] = dataclasses.field(default_factory=list)
  matmuls: int = 0

  @property
  def own(self) -> int:
    """Bundles of this region that are in none of its parts."""
    return self.end - self.start - sum(r.end - r.start for r in self.inside)

  def counted(self, looped: bool = False) -> list["Region"]:
    """Loops, and the large regions inside of one, in program order."""
    found = []
    for region in self.inside:
      loop = region.kind == "loop"
      if loop or (looped and region.own >= LARGE):
        found.append(region)
      found += region.counted(looped or loop)
    return found


def _bundles(text: str) -> list[str]:
  """The bundles' own text, by their number."""
  found: list[str] = []
  for line in text.splitlines():
    match = _BUNDLE.match(line)
    if match and int(match[1], 16) == len(found):
      found.append(line)
    elif found:
      found[-1] += line
  return found


def _nested(whole: Region, parts: list[Region]) -> Region:
  """Hangs each part under the smallest region that holds it."""
  stack = [whole]
  for part in sorted(parts, key=lambda r: (r.start, -r.end)):
    while part.start >= stack[-1].end:
      stack.pop()
    if part.end > stack[-1].end:
      raise ValueError(f"regions cross: {part} and {stack[-1]}")
    stack[-1].inside.append(part)
    stack.append(part)
  return whole


def program(text: str) -> Region:
  """Returns the tree of regions of one `final_bundles` dump.

  Raises:
    ValueError: there are no bundles, or their branches do not nest.
  """
  bundles = _bundles(text)
  if not bundles:
    raise ValueError("no VLIW bundles: is this a final_bundles dump?")
  begins = {n: i for i, b in enumerate(bundles) for n in _START.findall(b)}
  parts = []
  for i, bundle in enumerate(bundles):
    for _, name in _BRANCH.findall(bundle):
      after = min(i + 1 + DELAY, len(bundles))
      at = begins.get(name, len(bundles))  # the end of the program has no mark
      if at <= i:
        parts.append(Region("loop", at, after))
      elif at > after:
        parts.append(Region("if", after, at))
  tree = _nested(Region("program", 0, len(bundles)), parts)
  for region in [tree, *tree.counted()]:
    inside = bundles[region.start : region.end]
    region.matmuls = sum("vmatmul" in b for b in inside)
  return tree


def spills(text: str) -> int:
  """Returns how many bundles move a vector register to or from the stack."""
  return sum(bool(_SPILL.search(bundle)) for bundle in _bundles(text))


def cost(tree: Region, counts: list[int]) -> int:
  """Returns bundles executed; `counts` are the runs of `tree.counted()`.

  Raises:
    ValueError: the program has other regions than `counts` speaks of.
  """
  regions = tree.counted()
  if len(regions) != len(counts):
    shown = [(r.kind, r.start, r.end, r.matmuls) for r in regions]
    raise ValueError(f"{len(counts)} counts for the regions {shown}")
  runs = {id(r): n for r, n in zip(regions, counts, strict=True)}

  def total(region: Region, times: int) -> int:
    times = runs.get(id(region), times)
    return times * region.own + sum(total(r, times) for r in region.inside)

  return total(tree, 1)
