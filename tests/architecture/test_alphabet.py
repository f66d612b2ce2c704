"""One alphabet: the letters of names, einsums and declared axes agree."""

import ast
import re

import pytest

SUFFIX = re.compile(r"^_*[a-z][a-z0-9]*(?:_[A-Za-z0-9]+)*_([A-Za-z0-9]+)$")
EQUATION = re.compile(r"^(?=.*[A-Z])[\w. ]+(,[\w. ]+)*->[\w. ]*$")
SAME_SHAPE = ("astype", "at", "set", "add")


def alphabet(source):
  """The letters of the literal `AXES = {...}`, without importing it."""
  for node in ast.parse(source).body:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if [getattr(target, "id", None) for target in targets] == ["AXES"]:
      return set(ast.literal_eval(node.value))
  raise ValueError("no literal AXES = {letter: meaning} in the source")


def suffix(name):
  """`tokens_BT` to `BT`; None for a name without axes (`num_rows`, `MAX_B`)."""
  match = SUFFIX.match(name)
  return match[1] if match and re.search("[A-Z]", match[1]) else None


def undeclared(term, axes):
  """Letters of `term` that no axis has; a lower-case letter is derived."""
  known = axes | {letter.lower() for letter in axes}
  return "".join(letter for letter in term if letter not in known)


def bound_names(tree):
  """Yields (line, name) where this source gives a name to something."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      yield node.lineno, node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
      yield node.lineno, node.attr
    elif isinstance(node, ast.arg):
      yield node.lineno, node.arg
    elif (
      isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "param"
    ):
      yield from ((node.lineno, text(a)) for a in node.args[:1] if text(a))


def text(node):
  """The string that a node is, or None."""
  value = getattr(node, "value", None)
  plain = isinstance(node, ast.Constant) and isinstance(value, str)
  return value if plain else None


def operand_name(node):
  """The name an operand goes by, or None for an unnamed expression."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute) and node.attr not in SAME_SHAPE:
    return node.attr
  if isinstance(node, ast.Attribute):
    return operand_name(node.value)
  if isinstance(node, ast.Subscript):
    return text(node.slice)
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
    return operand_name(node.func) if node.func.attr in SAME_SHAPE else None
  return None


def is_einsum(node):
  called = isinstance(node, ast.Call) and ast.unparse(node.func)
  return bool(called) and called.split(".")[-1] == "einsum"


def mismatches(term, node, place):
  """A term of an equation against the name that stands for it."""
  name = operand_name(node)
  if name is None or "..." in term:
    return
  if suffix(name) is None:
    yield f"{place}: einsum operand {name} wants the suffix _{term}"
  elif suffix(name) != term:
    yield f"{place}: einsum calls {name} {term}"


def einsum_violations(path, tree):
  """Terms of literal einsums that differ from their operands' names."""
  for node in ast.walk(tree):
    if is_einsum(node) and node.args and text(node.args[0]):
      terms, _, _ = text(node.args[0]).replace(" ", "").partition("->")
      for term, operand in zip(terms.split(","), node.args[1:], strict=False):
        yield from mismatches(term, operand, f"{path}:{node.lineno}")
    elif isinstance(node, ast.Assign):
      yield from output_violations(path, node)


def output_violations(path, node):
  """`x_BT = einsum("...->TB", ...)`, also under `.astype(...)`."""
  value = node.value
  if isinstance(value, ast.Call) and ast.unparse(value.func).endswith(
    ".astype"
  ):
    value = value.func.value
  if not is_einsum(value) or not value.args or not text(value.args[0]):
    return
  output = text(value.args[0]).replace(" ", "").partition("->")[2]
  for target in node.targets:
    if suffix(operand_name(target) or ""):
      yield from mismatches(output, target, f"{path}:{node.lineno}")


def letter_violations(path, tree, axes):
  """Suffixes and equations with a letter that `AXES` does not declare."""
  for line, name in bound_names(tree):
    unknown = undeclared(suffix(name) or "", axes)
    if unknown:
      yield f"{path}:{line}: {name} has the undeclared axis {unknown}"
  for node in ast.walk(tree):
    equation = text(node) or ""
    if EQUATION.match(equation):
      unknown = undeclared(re.sub("[-> ,.]", "", equation), axes)
      if unknown:
        yield f"{path}:{node.lineno}: {equation!r} has undeclared {unknown}"


def lint(axes):
  """The whole alphabet as one lint over (path, source)."""

  def violations(path, source):
    tree = ast.parse(source)
    yield from letter_violations(path, tree, axes)
    yield from einsum_violations(path, tree)

  return violations


def test_alphabet(floors, sweep):
  sweep(lint(alphabet(floors["research/sharding.py"])), floors)


def test_axes_are_letters(floors):
  axes = alphabet(floors["research/sharding.py"])
  assert set("BTSDENKGHFVC1") <= axes
  assert all(len(axis) == 1 for axis in axes)


CONTROL = lint(set("BTDKGH1"))


@pytest.mark.parametrize(
  "source",
  [
    "tokens_BX = 1",
    "tokens_B2 = 1",
    "def f(tokens_BX): pass",
    "self.tokens_BX = 1",
    "w = self.param('w_DX', init, (1, 2))",
    "jnp.einsum('BT,TX->BX', a_BT, b_TX)",
    "project('BT,TX->BX')",
    "jnp.einsum('BT,TD->BD', a_TB, b_TD)",
    "jnp.einsum('BT,TD->BD', a, b_TD)",
    "jnp.einsum('BT,TD->BD', a_BT.astype(f), p['b_DT'])",
    "y_DB = jnp.einsum('BT,TD->BD', a_BT, b_TD)",
    "y_DB = jnp.einsum('BT,TD->BD', a_BT, b_TD).astype(f)",
  ],
)
def test_alphabet_control(source):
  assert list(CONTROL("x.py", source))


@pytest.mark.parametrize(
  "source",
  [
    "num_rows, MAX_B, key = 1, 2, 3",
    "half_BTKGh = x_BTKGH[..., :4]",
    "scale_B1 = 1",
    "y_BD = jnp.einsum('BT,TD->BD', a_BT, params['b_TD'])",
    "y_BD = jnp.einsum('BT, TD -> BD', jnp.exp(a_BT), b_TD).astype(f)",
    "y = jnp.einsum(equation, a, b)",
    "arrow = 'a -> b'",
  ],
)
def test_alphabet_permits(source):
  assert not list(CONTROL("x.py", source))


def test_alphabet_needs_its_table():
  with pytest.raises(ValueError, match="AXES"):
    alphabet("OTHER = {}")
