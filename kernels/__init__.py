"""Arrays in, arrays out: the kernels that Pith's models and losses run on."""

from kernels.attention import flash_attention
from kernels.decode import decode_attention
from kernels.mask import Blocks
from kernels.ragged import empty_pages, ragged_paged_attention
from kernels.ring import from_zigzag, ring_attention, to_zigzag
from kernels.softmax import merge
from kernels.vocab import map_tokens, token_logprobs

__version__ = "0.0.0"  # transformers probes a package of this name for one
__all__ = [
  "Blocks",
  "decode_attention",
  "empty_pages",
  "flash_attention",
  "from_zigzag",
  "map_tokens",
  "merge",
  "ragged_paged_attention",
  "ring_attention",
  "to_zigzag",
  "token_logprobs",
]
