"""Right programs made wrong, and many rewards at once."""

import ast
import concurrent.futures
import copy

from research.types import Problem


def nothing(source: str) -> str:
  """The program with every function returning nothing."""
  tree = ast.parse(source)
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef):
      node.body = [ast.Return(ast.Constant(None))]
  return ast.unparse(ast.fix_missing_locations(tree))


_SWAPPED = {
  ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
  ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
  ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
  ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
  ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str, most: int) -> list[str]:
  """Up to so many programs with one operator or one number changed."""
  tree, made = ast.parse(source), []
  for place in range(sum(1 for _ in ast.walk(tree))):
    changed = copy.deepcopy(tree)
    there = list(ast.walk(changed))[place]
    if _change(there):
      made.append(ast.unparse(ast.fix_missing_locations(changed)))
  return made[:most]


def _change(there: ast.AST) -> bool:
  """Changes a node in place; False where it is of another kind."""
  if isinstance(there, ast.Compare) and type(there.ops[0]) in _SWAPPED:
    there.ops[0] = _SWAPPED[type(there.ops[0])]()
  elif isinstance(there, ast.BinOp | ast.BoolOp | ast.AugAssign):
    if type(there.op) not in _SWAPPED:
      return False
    there.op = _SWAPPED[type(there.op)]()
  elif isinstance(there, ast.Constant) and type(there.value) is int:
    there.value += 1
  else:
    return False
  return True


def kinds(task, graded: list[tuple[Problem, str]]) -> list[str]:
  """The kinds of verdict on programs, two at a time."""
  reward = lambda pair: task.reward(pair[0], f"```python\n{pair[1]}\n```").kind
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    return list(threads.map(reward, graded))
