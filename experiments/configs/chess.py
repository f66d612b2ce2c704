"""Chess, move by move: a student learns the rules from games, then to win.

Hypothesis. Reinforcement by how whole games end makes fewer illegal moves than
            games that are only read, and wins more of them.
Command.  python -m experiments.run --workdir=runs/chess \
            --config=experiments/configs/chess.py:small
          or, from a checkpoint against Stockfish's 1,000 nodes a move,
          python -m experiments.run --workdir=runs/chess \
            --config=experiments/configs/chess.py --config.base.directory=DIR
Expected. Published, in 31 games against a random mover: R1 won 7 and forfeited
          58 %, with 52.9 mistakes in 1,000 moves. Not run here at that size.
Cost.     `:small`: half an hour of a core; `:test`: a minute.
Source.   llm_chess (Saplin 2025): its rules, three mistakes forfeit a game of
          200 plies. The reinforcement is ours; there is none in the source.
          `:small` is a queen and a king against a king who moves at random.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair, _zero

CHESS = "research.environments.chess"
MOVE = 8  # tokens of a move in bytes, its end among them
WHOLE = {"positions": "opening", "opponent": "stockfish", "plies": 200}
ENDGAME = {"positions": "queen", "opponent": "random", "plies": 12}


def problems(split: str, rules: dict[str, Any]) -> dict[str, Any]:
  """Games of a split."""
  return {"task": CHESS, "split": split, "args": rules}


def games(
  split: str, rules: dict[str, Any], count: int, **rest: Any
) -> dict[str, Any]:
  """Games that a student plays, or without one those to read."""
  told = {"problems": problems(split, rules), "count": count}
  return {"stage": "experiments.stages.play", **told, **rest}


def reinforce(
  rules: dict[str, Any], steps: int, rollout: dict[str, Any]
) -> dict[str, Any]:
  """Groups of games from one position, by how they end."""
  return {
    "stage": "experiments.stages.reinforce",
    "start": "base",
    "problems": problems("train", rules),
    "pool": 2000,
    "rollout": rollout,
    "algorithm": {"name": "research.algorithms.rloo", "args": {}},
    "advantage": {},
    "before": "trainer",
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "loop": {"steps": steps, "save_every": 20},
  }


def published() -> ConfigDict:
  """From a checkpoint, whole games."""
  config = _zero.published("qwen2_5_1_5b", [(32_768, 8, 200)])
  room = {"turns": 103, "new_tokens": 256, "length": 32_768}
  sizes = {"problems": 32, "group": 8, "rows": 64}
  config.student = reinforce(WHOLE, 200, room | sizes) | {"microbatches": 8}
  for name in ("base", "student"):
    by = {"player": name, "rows": 64, **room}
    config[f"{name}_games"] = games("test", WHOLE, 512, **by)
  config.stages = ("base", "student", "base_games", "student_games")
  return config


def small(test: bool) -> ConfigDict:
  """From games that a student has read, an endgame."""
  shape = {} if test else {"width": 64, "layers": 3}
  turns, room = (2, 288) if test else (9, 896)  # three mistakes among them
  config = _pair.base("test" if test else "", context=room, **shape)
  config.games = games("train", ENDGAME, 8 if test else 3000)
  config.base = _pair.distill(
    {"{games}/episodes.jsonl": 1.0}, 600, test, length=room, rows=8
  )
  play = {"turns": turns, "new_tokens": MOVE, "length": room}
  sizes = {"problems": 2 if test else 8, "group": 4 if test else 8}
  rows = {"rows": 8 if test else 64}
  config.student = reinforce(
    ENDGAME, 2 if test else 40, play | sizes | rows
  ) | {"optimizer": {"learning_rate": 3e-4, "schedule": "constant"}}
  for name in ("base", "student"):
    count = 4 if test else 256
    by = {"player": name, **rows, **play}
    config[f"{name}_games"] = games("test", ENDGAME, count, **by)
  stages = ("games", "base", "student", "base_games", "student_games")
  config.stages = stages
  return config


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return small(arg == "test") if arg in ("small", "test") else published()
