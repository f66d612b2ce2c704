"""What is not written as a checkpoint, and leaves nothing behind."""

import dataclasses

import jax.numpy as jnp
import pytest

from research.models import huggingface, presets, quantize
from tests.research.models.test_huggingface import make

WRONG = {
  "wider": ({"mlp": 96}, "mlp/down_FD is quantised or "),
  "fewer layers": ({"layers": 1}, "quantised or "),
  "tied": ({"tied": True}, "unembed_VD is no parameter"),
  "without norms": ({"qk_norm": False}, "scale_H is no parameter"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_parameters_of_another_config_are_not_written(kind, tmp_path):
  config = presets.make("tiny", tied=False, layers=2, mlp=48)
  changes, message = WRONG[kind]
  other = dataclasses.replace(config, **changes)
  with pytest.raises(ValueError, match=message):
    huggingface.save(tmp_path / "x", other, make(config))
  assert not list(tmp_path.iterdir())


def test_what_is_not_finite_or_in_few_bits_is_not_written(tmp_path):
  config = presets.make("tiny", layers=2)
  params = make(config)
  narrow = quantize.quantize(params, 8)
  with pytest.raises(ValueError, match="is quantised"):
    huggingface.save(tmp_path / "x", config, narrow)
  params["layers"]["mlp"]["up_DF"] *= jnp.nan
  with pytest.raises(ValueError, match=r"up_proj\.weight holds NaN"):
    huggingface.save(tmp_path / "x", config, params)
  assert not list(tmp_path.iterdir())
