"""Chess, move by move: what is legal, and what wins, over many turns.

    user       white rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1
    assistant  e2e4
    user       g8f6 rnbqkb1r/pppppppp/5n2/8/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 1 2
    ...

A move is read as UCI or as SAN. What is neither, or illegal, is a mistake: the
same position is asked again, and the third mistake of a game forfeits it. After
`plies` half-moves the game is drawn. The rules and scores are those of
llm_chess; the opponent draws its moves, or is Stockfish.
"""

import atexit
import dataclasses
import functools
import random
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import chess
import chess.engine

from research import daemon, splits
from research.types import Problem, Turn, Verdict

MISTAKES = 3
PATIENCE = 30.0  # seconds a move, never reached by an engine that is well
OPPONENTS = ("random", "stockfish")
POSITIONS = ("opening", "queen")  # a few moves into a game; queen against none


@dataclasses.dataclass(frozen=True)
class State:
  """A game: where it began, its moves in UCI, and the player's mistakes."""

  problem: Problem
  seed: int
  moves: tuple[str, ...] = ()
  mistakes: int = 0

  @functools.cached_property
  def board(self) -> chess.Board:
    """The position, with its history; not to be changed."""
    board = chess.Board(self.problem.meta["fen"])
    for move in self.moves:
      board.push_uci(move)
    return board


def problems(
  split: str,
  seed: int,
  positions: str = "opening",
  opponent: str = "random",
  plies: int = 200,
  nodes: int = 1000,
) -> Iterator[Problem]:
  """Games without end, each from another position, with the player to move.

  `nodes` is what Stockfish may search a move. Raises ValueError for names that
  are not of this module, FileNotFoundError where Stockfish is not installed.
  """
  for name, known in ((positions, POSITIONS), (opponent, OPPONENTS)):
    if name not in known:
      raise ValueError(f"chess: {name!r} is none of {', '.join(known)}")
  if opponent == "stockfish":
    _program()
  rules = {"opponent": opponent, "plies": plies, "nodes": nodes}
  make = {"opening": _opening, "queen": _queen}[positions]
  draw = lambda rng, level: _problem(make(rng, level), level, rules)
  levels = range(5) if positions == "opening" else (0,)
  return splits.stream(f"chess/{positions}", split, seed, levels, draw)


def start(problem: Problem, seed: int) -> Turn:
  """The first position."""
  return Turn(State(problem, seed), problem.prompt)


def step(state: State, text: str) -> Turn:
  """The opponent's reply, a mistake's, or how the game ended.

  Won is 1, drawn 0.5, lost or forfeited 0. An engine that fails is an error of
  grading, and no loss.
  """
  move = read(state.board, text)
  if move is None:
    wrong = dataclasses.replace(state, mistakes=state.mistakes + 1)
    lost = Verdict("wrong", 0.0) if wrong.mistakes == MISTAKES else None
    return Turn(wrong, f"illegal {state.board.fen()}", lost)
  ours = dataclasses.replace(state, moves=(*state.moves, move.uci()))
  if (ended := _ended(ours)) is not None:
    return Turn(ours, "", ended)
  try:
    reply = _reply(ours)
  except (chess.engine.EngineError, TimeoutError):
    _engine().close()
    _engine.cache_clear()
    return Turn(ours, "", Verdict("error", None))
  both = dataclasses.replace(ours, moves=(*ours.moves, reply.uci()))
  return Turn(both, f"{reply.uci()} {both.board.fen()}", _ended(both))


def facts(state: State) -> dict[str, Any]:
  """What a game was like: its half-moves, and the player's mistakes."""
  forfeit = state.mistakes == MISTAKES
  return {
    "plies": len(state.moves),
    "mistakes": state.mistakes,
    "forfeited": int(forfeit),
  }


def trace(state: State, seed: int, said: Sequence[str]) -> str:
  """A move to learn from: one that mates where there is one, else any legal."""
  rng = random.Random(f"chess/{seed}/{len(said)}")
  moves = sorted(state.board.legal_moves, key=str)
  mating = [move for move in moves if _mates(state.board, move)]
  return rng.choice(mating or moves).uci()


def read(board: chess.Board, text: str) -> chess.Move | None:
  """The legal move that a text names, in UCI or SAN; None where it is none."""
  name = text.strip().rstrip("+#!?")
  names = lambda move: (move.uci(), board.san(move).rstrip("+#"))
  return next((m for m in board.legal_moves if name in names(m)), None)


def _mates(board: chess.Board, move: chess.Move) -> bool:
  after = board.copy(stack=False)
  after.push(move)
  return after.is_checkmate()


def _ended(state: State) -> Verdict | None:
  """How a game ended for the player, None while it goes on."""
  outcome = state.board.outcome(claim_draw=True)
  if outcome is None and len(state.moves) < state.problem.meta["plies"]:
    return None
  white = state.problem.meta["fen"].split()[1] == "w"
  if outcome is None or outcome.winner is None:
    return Verdict("wrong", 0.5)
  won = outcome.winner == white
  return Verdict("correct", 1.0) if won else Verdict("wrong", 0.0)


def _reply(state: State) -> chess.Move:
  """The opponent's move, which depends on the game and its seed alone."""
  rules = state.problem.meta
  if rules["opponent"] == "stockfish":
    # Nodes decide; without a time as well a stopped engine is waited for.
    limit = chess.engine.Limit(nodes=rules["nodes"], time=PATIENCE)
    # Another game each time: nothing is remembered of the move before.
    move = _engine().play(state.board, limit, game=object()).move
    if move is None:
      raise chess.engine.EngineError("Stockfish gave up a game that goes on")
    return move
  rng = random.Random(f"chess/{state.seed}/{'/'.join(state.moves)}")
  return rng.choice(sorted(state.board.legal_moves, key=str))


def _program() -> str:
  """Where Stockfish is."""
  found = shutil.which("stockfish", path="/usr/games") or shutil.which(
    "stockfish"
  )
  if found is None:
    raise FileNotFoundError(
      "stockfish is not installed: apt-get install stockfish, or set the "
      'opponent to "random"'
    )
  return found


@functools.cache
def _engine() -> chess.engine.SimpleEngine:
  """The one engine of this process, which ends with it.

  A thread waits for what the engine says. Python would wait for that thread
  before it closes the engine, were it not the child of a daemon.
  """
  started, _ = daemon.begin(
    lambda: chess.engine.SimpleEngine.popen_uci(_program())
  )
  engine = started.result()
  engine.configure({"Threads": 1, "Hash": 16})
  atexit.register(engine.close)
  return engine


def _problem(board: chess.Board, level: int, rules: dict[str, Any]) -> Problem:
  fen = board.fen()
  side = "white" if board.turn else "black"
  # Clocks are no part of what makes a position another one.
  key = " ".join(fen.split()[:4])
  meta = {"key": key, "difficulty": level, "fen": fen} | rules
  return Problem(f"{side} {fen}", "", meta)


def _opening(rng: random.Random, level: int) -> chess.Board:
  """A position some random moves into a game, either side to move."""
  board = chess.Board()
  for _ in range(2 + 2 * level + rng.randrange(2)):
    board.push(rng.choice(sorted(board.legal_moves, key=str)))
    if board.is_game_over():
      return _opening(rng, level)
  return chess.Board(board.fen())


def _queen(rng: random.Random, level: int) -> chess.Board:
  """White to move with king and queen against a king."""
  board = chess.Board(None)
  places = rng.sample(range(64), 3)
  pieces = (chess.WHITE, chess.KING), (chess.WHITE, chess.QUEEN)
  for place, (side, kind) in zip(
    places, (*pieces, (chess.BLACK, chess.KING)), strict=True
  ):
    board.set_piece_at(place, chess.Piece(kind, side))
  return board if board.is_valid() else _queen(rng, level)
