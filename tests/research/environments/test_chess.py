"""Legality, forfeits, draws and wins, against python-chess and Stockfish."""

import csv
import dataclasses
import itertools
import os
import shutil
import subprocess
import sys

import chess
import chess.engine
import pytest

from research.environments import chess as game
from research.sampling import episodes
from research.types import Problem

FOOL = "rnbqkbnr/pppp1ppp/8/4p3/6P1/5P2/PPPPP2P/RNBQKBNR b KQkq - 0 2"
RULES = {"opponent": "random", "plies": 200, "nodes": 100, "key": "k"}
BREW = shutil.which("stockfish", path="/usr/games:" + os.environ["PATH"])
needs_stockfish = pytest.mark.skipif(
  BREW is None, reason="stockfish is not installed"
)


def started(fen, **rules):
  problem = Problem("?", "", RULES | {"fen": fen} | rules)
  return game.start(problem, 0).state


def test_a_mate_is_won():
  turn = game.step(started(FOOL), "d8h4")
  assert turn.verdict.kind == "correct" and turn.verdict.value == 1.0
  assert game.step(started(FOOL), "Qh4#").verdict.value == 1.0


def test_being_mated_is_lost(monkeypatch):
  fen = "rnbqkbnr/pppp1ppp/8/4p3/8/5P2/PPPPP1PP/RNBQKBNR w KQkq - 0 2"
  reply = lambda state: chess.Move.from_uci("d8h4")
  monkeypatch.setattr(game, "_reply", reply)
  turn = game.step(started(fen), "g2g4")
  assert turn.verdict.kind == "wrong" and turn.verdict.value == 0.0


@pytest.mark.parametrize(
  "text",
  ["", "e9e4", "a8a1", "0000", "--", "e7e5 e5e4", "I play d8h4", "d8h4" * 9],
)
def test_three_mistakes_forfeit(text):
  state = started(FOOL)
  for count in (1, 2, 3):
    turn = game.step(state, text)
    state = turn.state
    assert game.facts(state)["mistakes"] == count and not state.moves
    assert (turn.verdict is None) == (count < 3)
    assert turn.text == f"illegal {FOOL}"
  assert turn.verdict.value == 0.0 and game.facts(state)["forfeited"] == 1


def test_mistakes_are_of_the_whole_game():
  state = started(chess.STARTING_FEN)
  for text in ("bad", "e2e4", "bad"):
    turn = game.step(state, text)
    state = turn.state
  assert turn.verdict is None and state.mistakes == 2


@pytest.mark.parametrize(
  "fen, move",
  [
    ("7k/5K2/8/6Q1/8/8/8/8 w - - 0 1", "g5g6"),  # stalemate
    ("7k/8/8/8/8/8/6pK/8 w - - 0 1", "h2g2"),  # two kings are left
    ("7k/8/8/8/8/8/1R5K/8 w - - 99 80", "b2b3"),  # fifty moves
  ],
)
def test_draws(fen, move):
  turn = game.step(started(fen), move)
  assert (turn.verdict.kind, turn.verdict.value) == ("wrong", 0.5)


def test_repetition_is_a_draw(monkeypatch):
  state, ours = started(chess.STARTING_FEN), itertools.cycle(["g1f3", "f3g1"])
  theirs = itertools.cycle(["g8f6", "f6g8"])
  reply = lambda state: chess.Move.from_uci(next(theirs))
  monkeypatch.setattr(game, "_reply", reply)
  verdicts = []
  for _ in range(4):
    turn = game.step(state, next(ours))
    state = turn.state
    verdicts.append(turn.verdict and turn.verdict.value)
  assert verdicts == [None, None, None, 0.5]


def test_the_limit_of_plies():
  state = started(chess.STARTING_FEN, plies=2)
  turn = game.step(state, "e2e4")
  assert turn.verdict.value == 0.5 and game.facts(turn.state)["plies"] == 2


def test_the_opponent_moves_by_game_and_seed():
  problem = next(game.problems("train", 0))
  move = lambda seed: (
    game.step(
      game.start(problem, seed).state,
      game.trace(game.start(problem, 0).state, 0, ()),
    ).text
  )
  assert move(0) == move(0) and len({move(seed) for seed in range(9)}) > 1


def test_positions_of_a_queen():
  for problem in itertools.islice(game.problems("train", 0, "queen"), 50):
    board = chess.Board(problem.meta["fen"])
    assert board.is_valid() and board.turn == chess.WHITE
    assert sorted(str(board.piece_map()[s]) for s in board.piece_map()) == [
      "K",
      "Q",
      "k",
    ]


@pytest.mark.parametrize("args", [{"positions": "x"}, {"opponent": "me"}])
def test_names_that_are_not(args):
  with pytest.raises(ValueError, match="is none of"):
    game.problems("train", 0, **args)


@needs_stockfish
def test_stockfish_plays_and_wins():
  """It mates a random mover, and plays the same game twice."""
  problem = next(game.problems("train", 0, opponent="stockfish"))
  played = episodes.recite(game, problem, 0)
  assert played.verdict.value == 0.0 and len(played.turn.state.moves) > 4
  assert episodes.recite(game, problem, 0).messages == played.messages


@needs_stockfish
def test_a_dead_engine_is_no_loss():
  state = started(chess.STARTING_FEN, opponent="stockfish")
  game._engine().close()
  turn = game.step(state, "e2e4")
  assert turn.verdict.kind == "error" and turn.verdict.value is None
  assert game.step(state, "e2e4").verdict is None  # a new one is there


@needs_stockfish
def test_a_process_that_has_an_engine_ends():
  program = "from research.environments import chess; chess._engine()"
  command = [sys.executable, "-c", program]
  subprocess.run(command, timeout=60, check=True)


def test_no_stockfish(monkeypatch):
  monkeypatch.setattr(shutil, "which", lambda *args, **rest: None)
  with pytest.raises(FileNotFoundError, match="apt-get install stockfish"):
    game.problems("train", 0, opponent="stockfish")


def test_real_puzzles_are_legal_games(data_dir):
  """The solutions of Lichess's puzzles are read as moves, one by one."""
  path = data_dir / "chess" / "lichess_puzzles_sample.csv"
  with path.open() as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    state = started(row["FEN"])
    for move in row["Moves"].split():
      assert game.read(state.board, move).uci() == move
      moves = (*state.moves, move)
      state = dataclasses.replace(state, moves=moves)
      state.__dict__.pop("board", None)
    mates = "mate" in row["Themes"].split()
    assert not mates or state.board.is_checkmate()
  assert len(rows) >= 20
