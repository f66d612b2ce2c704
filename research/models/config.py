"""The shape of a decoder: every switch that a published family needs."""

import dataclasses
import math
from typing import Literal

# The matrices of a layer, and the axes that each is contracted over: its first.
MATRICES = {
  "q_DKGH": "D",
  "k_DKH": "D",
  "v_DKH": "D",
  "o_KGHD": "KGH",
  "gate_DF": "D",
  "up_DF": "D",
  "down_FD": "F",
}
TARGETS = {name.split("_")[0]: name for name in MATRICES}  # by their stems
ADAPTER = "_lora"  # behind such a stem: what holds the A and B of its matrix


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary position embedding (RoFormer, 2104.09864) and its scalings.

  `linear` divides every frequency by `factor` (2306.15595); `llama3` divides
  the low ones and blends between; `yarn` ramps between both by wavelength and
  sharpens attention (2309.00071). `original` is the context before scaling.
  """

  base: float = 10_000.0
  scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
  factor: float = 1.0
  original: int = 8192
  low_frequency: float = 1.0
  high_frequency: float = 4.0
  beta_fast: float = 32.0
  beta_slow: float = 1.0

  def __post_init__(self):
    """Refuses rotations that no position has."""
    if not (self.base > 0 and self.factor > 0):
      raise ValueError(
        f"rope: base is {self.base} and factor {self.factor}; both are above 0"
      )


@dataclasses.dataclass(frozen=True)
class Lora:
  """Low-rank adapters beside frozen matrices: W + scale A B (2106.09685).

  `targets` are the matrices that have them, by the stems of their names.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = tuple(TARGETS)
  rslora: bool = False

  def __post_init__(self):
    """Refuses adapters that adapt nothing, and matrices that no layer has."""
    if self.rank < 1 or not 0 < self.alpha < math.inf:
      raise ValueError(
        f"lora: rank is {self.rank} and alpha {self.alpha}; a rank of at least "
        "1 and a finite alpha above 0 are wanted"
      )
    named = [stem for stem in TARGETS if stem in self.targets]
    if not named or len(named) < len(self.targets):
      raise ValueError(
        f"lora: targets are {self.targets}; name some of {tuple(TARGETS)}, "
        "each once"
      )

  @property
  def scale(self) -> float:
    """alpha / rank, or alpha / sqrt(rank) with `rslora` (2312.03732)."""
    return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True)
class Model:
  """A decoder-only transformer.

  `window` bounds the attention of local layers; every `global_every`-th layer
  sees all, and the others rotate by `local_rope`. `unit_offset` scales norms by
  1 + w, `post_norm` adds a norm behind each sublayer, `embed_scale` multiplies
  embeddings by sqrt(width) (all three: Gemma). `remat` names what the backward
  pass recomputes: nothing, all but the matmul outputs, or everything. `lora`
  puts adapters beside the matrices; `research.models.lora` trains them.
  """

  vocab: int
  width: int
  layers: int
  kv_heads: int
  groups: int
  head_dim: int
  mlp: int
  context: int
  rope: Rope = Rope()
  activation: Literal["silu", "gelu"] = "silu"
  norm_eps: float = 1e-6
  qk_norm: bool = False
  qkv_bias: bool = False
  tied: bool = True
  window: int | None = None
  global_every: int = 1
  local_rope: Rope | None = None
  unit_offset: bool = False
  post_norm: bool = False
  embed_scale: bool = False
  attention_scale: float | None = None
  attention_softcap: float | None = None
  logit_softcap: float | None = None
  dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  remat: Literal["nothing", "elementwise", "everything"] = "nothing"
  lora: Lora | None = None

  def __post_init__(self):
    """Refuses a shape that no decoder has, and switches that do nothing."""
    window = 1 if self.window is None else self.window
    sizes = self.sizes | {"context": self.context, "window": window}
    for name, size in (sizes | {"global_every": self.global_every}).items():
      if size < 1:
        raise ValueError(f"model: {name} is {size}; it must be at least 1")
    if self.head_dim % 2:
      raise ValueError(f"model: head_dim is {self.head_dim}; it must be even")
    local = (self.global_every != 1, self.local_rope is not None)
    if (self.window is None and any(local)) or (self.window and not local[0]):
      raise ValueError(
        "model: local layers need both window and global_every > 1; local_rope "
        f"is theirs (window={self.window}, global_every={self.global_every})"
      )

  @property
  def sizes(self) -> dict[str, int]:
    """The size of each axis letter that a parameter may carry."""
    rank = {} if self.lora is None else {"R": self.lora.rank}
    return rank | {
      "V": self.vocab,
      "D": self.width,
      "N": self.layers,
      "K": self.kv_heads,
      "G": self.groups,
      "H": self.head_dim,
      "F": self.mlp,
    }

  def is_local(self, layer: int) -> bool:
    """Says whether a layer attends through the sliding window."""
    return self.window is not None and (layer + 1) % self.global_every != 0
