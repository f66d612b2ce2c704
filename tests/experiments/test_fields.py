"""No field of a config is dead: change any, and something else happens.

Each stage is run with the loop and the sampler replaced by recorders. What it
hands to them and what it writes are the things that can be seen of it.
"""

import copy
import dataclasses
import re
import zlib
from fnmatch import fnmatch
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments import loop, rollouts, run
from experiments.stages import reinforce
from research.models import peft, transformer
from research.sampling import engine
from tests.experiments.fields import CONFIG, FREE, OTHERS, PLANNED, SIGHTS


def parts(tree, name=""):
  """Yields the name of every dictionary in a config; that of its root is ""."""
  if isinstance(tree, dict):
    yield name[1:]
  if isinstance(tree, dict | list):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
      yield from parts(value, f"{name}.{key}")


def leaves(tree, name=""):
  """Yields (name, value) of every field: "a.b.0" is tree["a"]["b"][0]."""
  if not isinstance(tree, dict | list):
    yield name[1:], tree
    return
  items = tree.items() if isinstance(tree, dict) else enumerate(tree)
  for key, value in items:
    yield from leaves(value, f"{name}.{key}")


FIELDS = dict(leaves(CONFIG))


def first(table, name):
  """The entry of the first pattern that fits; KeyError where none does."""
  for pattern, entry in table.items():
    if fnmatch(name, pattern):
      return entry
  raise KeyError(f"config.{name}: say here how it is seen, or what else it is")


def other(name, value):
  """Another value that a field may have."""
  if any(fnmatch(name, pattern) for pattern in OTHERS):
    return first(OTHERS, name)
  if isinstance(value, bool):
    return not value
  if isinstance(value, int):
    return value + 1
  if isinstance(value, float):
    return value / 2
  return first(OTHERS, name)


def changed(name, value):
  """CONFIG with another value of one field."""
  config = copy.deepcopy(CONFIG)
  *path, last = name.split(".")
  at = lambda tree, key: tree[int(key) if isinstance(tree, list) else key]
  tree = config
  for key in path:
    tree = at(tree, key)
  tree[int(last) if isinstance(tree, list) else last] = value
  return config


def generate(samplings):
  """A sampler that says anything at all, and writes down what it was asked."""

  def sample(
    model, params, prompts_BT, lengths_B, keys_B, *, sampling, new_tokens, stop
  ):
    del model, params, lengths_B
    prompts = prompts_BT.shape, np.asarray(prompts_BT).tobytes()
    samplings.append((prompts, sampling, new_tokens, stop))
    seed = zlib.crc32(np.asarray(jax.random.key_data(keys_B)).tobytes())
    rng = np.random.default_rng(seed)
    rows = prompts_BT.shape[0]
    tokens_BT = rng.choice([*b"0123456789 xyz"], (rows, new_tokens))
    written_B = rng.integers(1, new_tokens + 4, rows)  # some are cut off
    logprobs_BT = rng.uniform(-2, 0, (rows, new_tokens)).astype(np.float32)
    for row, last in enumerate(written_B - 1):
      tokens_BT[row, last:][:1] = np.ravel(stop)[0]
    written_B = np.minimum(written_B, new_tokens)
    return tokens_BT.astype(np.int32), logprobs_BT, written_B

  return sample


def load_params(path, model, mesh):
  """Parameters that only depend on where they lie and on the model."""
  del mesh
  fill = zlib.crc32(path.parent.name.encode()) % 97
  shapes = jax.eval_shape(lambda key: transformer.init(model, key), KEY)
  return jax.tree.map(lambda s: np.full(s.shape, fill, s.dtype), shapes)


KEY = jax.random.key(0)


class Stage:
  """A stage that ran between recorders, and what can be seen of it."""

  def __init__(self, config, name, folder, monkeypatch):
    self.folder, self.samplings, self.fitted = folder, [], None
    module, self.config = run.plan(config)[name]
    names = config["stages"]
    inputs = {n: {"folder": str(folder.parent / n)} for n in names}
    monkeypatch.setattr(engine, "generate", generate(self.samplings))
    monkeypatch.setattr(loop, "load_params", load_params)
    monkeypatch.setattr(loop, "fit", self.fit)
    monkeypatch.setattr(peft, "save", lambda *_, **__: None)
    folder.mkdir(parents=True, exist_ok=True)
    self.outputs = module.run(self.config, inputs, folder)

  def fit(self, loop, workdir, state, abstract, step, draw, *, frozen, **_):
    self.fitted = SimpleNamespace(**locals())
    return SimpleNamespace(params=None)

  def error(self):
    """Says nothing where nothing is wrong."""
    if self.fitted is not None:
      self.step()

  def loop(self):
    return self.fitted.loop, self.outputs

  def state(self):
    return numbers(self.fitted.state().params)

  def frozen(self):
    return numbers(self.fitted.frozen)

  def inputs(self):
    anyone = SimpleNamespace(params={}, frozen=({}, None), key=KEY, step=0)
    return [numbers(self.fitted.draw(anyone, step)) for step in range(12)]

  def begun(self):
    """What is drawn for the first step of the stage's own first state."""
    state = dataclasses.replace(self.fitted.state(), frozen=self.fitted.frozen)
    return numbers(self.fitted.draw(state, 0))

  def step(self):
    anyone = SimpleNamespace(params={}, frozen=({}, None), key=KEY, step=0)
    inputs, _ = self.fitted.draw(anyone, 0)
    frozen = self.fitted.frozen
    state = dataclasses.replace(self.fitted.abstract, frozen=frozen)
    return jax.jit(self.fitted.step).lower(state, inputs).as_text()

  def records(self):
    files = sorted(self.folder.rglob("*.jsonl"))
    return self.outputs, {f.name: f.read_text() for f in files}

  def seen_samplings(self):
    if self.fitted is not None:
      self.inputs()
    return self.samplings


def numbers(tree):
  """Arrays as bytes, so that they compare to the bit."""
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [(str(p), np.asarray(x).tobytes(), np.shape(x)) for p, x in paths]


@pytest.fixture
def look(cached, tmp_path, monkeypatch):
  """look(config, "STAGE/SIGHT"): what is seen there."""

  def see(config, where):
    name, sight = where.split("/")
    root = tmp_path / str(len(list(tmp_path.iterdir())))
    if name != "annotate":
      Stage(CONFIG, "annotate", root / "annotate", monkeypatch)
    try:
      stage = Stage(config, name, root / name, monkeypatch)
      sights = {"samplings": stage.seen_samplings}
      return (sights.get(sight) or getattr(stage, sight))()
    except (ValueError, TypeError, AttributeError) as error:
      if sight != "error":
        raise
      return str(error)

  return see


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  """A tokenizer.json that numbers bytes in another order."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  inner = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
  path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
  inner.save(str(path))
  return str(path)


SEEN = {}


def before(look, where):
  """What is seen of the unchanged config, looked at once."""
  if where not in SEEN:
    SEEN[where] = look(CONFIG, where)
  return SEEN[where]


def planned(config):
  """The plan as text, or why there is none."""
  try:
    return str(run.plan(config))
  except ValueError as error:
    return str(error)


def sight(name):
  """Where a field is seen; None for the plan alone."""
  if any(fnmatch(name, pattern) for pattern in PLANNED):
    return None
  return first(SIGHTS, name).replace("*", name.split(".")[0])


SLOW = ("step", "state", "frozen", "error", "begun")


def sorted_by_cost(names, where):
  """Parameters, slow where a train step is lowered to look at it.

  So is the second of a list, whose fields are read as those of the first.
  """
  twin = lambda name: re.search(r"\.(domains|levels|suites)\.1\.", name)
  slow = lambda name: (where(name) or "").endswith(SLOW) or twin(name)
  marks = lambda name: [pytest.mark.slow] if slow(name) else []
  return [pytest.param(name, marks=marks(name)) for name in names]


@pytest.mark.parametrize("name", sorted_by_cost(FIELDS, sight))
def test_a_field_changes_something(name, look, tokenizer):
  value = tokenizer if name == "tokenizer" else other(name, FIELDS[name])
  assert value != FIELDS[name], "no other value"
  config = changed(name, value)
  assert planned(config) != planned(CONFIG)
  if where := sight(name):
    assert look(config, where) != before(look, where)


@pytest.mark.parametrize(
  "where", sorted_by_cost(sorted({sight(n) for n in FIELDS} - {None}), str)
)
def test_what_is_seen_depends_on_the_config_alone(where, look):
  """Or else every field would seem to change something."""
  assert look(CONFIG, where) == before(look, where)


def refusal(part):
  """Where an unknown field of a part is refused; None for the plan."""
  free = any(fnmatch(part, pattern) for pattern in FREE)
  return f"{part.split('.')[0]}/error" if free else None


@pytest.mark.parametrize("part", sorted_by_cost(parts(CONFIG), refusal))
def test_an_unknown_field_is_refused(part, look):
  config = changed(f"{part}.sleeps".removeprefix("."), 1)
  if where := refusal(part):
    assert "sleeps" in look(config, where)
  else:
    with pytest.raises(ValueError, match="sleeps"):
      run.plan(config)


def test_no_field_of_reinforcement_goes_without():
  about = CONFIG["reinforced"]
  fields = lambda cls: {field.name for field in dataclasses.fields(cls)}
  assert set(about) - {"stage"} == fields(reinforce.Config) - {"run"}
  assert set(about["rollout"]) == fields(rollouts.Rollout)


def test_a_field_that_nobody_describes_is_noticed():
  for table, name in ((SIGHTS, "distilled.more"), (OTHERS, "annotate.more")):
    with pytest.raises(KeyError, match="more"):
      first(table, name)
