"""Arrays in, arrays out: the kernels that Pith's models and losses run on."""

from kernels.reference import flash_attention
from kernels.vocab import map_tokens, token_logprobs

__version__ = "0.0.0"  # transformers probes a package of this name for one
__all__ = ["flash_attention", "map_tokens", "token_logprobs"]
