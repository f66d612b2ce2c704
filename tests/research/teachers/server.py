"""An OpenAI-compatible endpoint that misbehaves as it is told to.

    python -m tests.research.teachers.server PORT LOG FAULTS SCRIPT

A prompt is answered by its own words in reverse, or as the first entry of
SCRIPT, a JSON list of [words, answer], says whose words it contains. The n-th
request of all gets the fault FAULTS[n % len(FAULTS)]: `.` none, `4` 429, `5`
500, `t` a time-out, `h` silence for ever, `c` a stream that is cut, `m`
malformed JSON, `b` 400, `g` 504, `n` no usage, `z` a usage of zeros, `u` half
of it. LOG gets a line a request: its prompt.
"""

import asyncio
import contextlib
import itertools
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

STALL = 3.0  # seconds: longer than a test's time-out
REPOSITORY = pathlib.Path(__file__).parents[3]


@contextlib.contextmanager
def served(log, faults, script=()):
  """The url of a server of its own process."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
  command = [sys.executable, "-m", "tests.research.teachers.server"]
  process = subprocess.Popen(
    [*command, str(port), log, faults, json.dumps(script)], cwd=REPOSITORY
  )
  try:
    for _ in range(300):
      with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready")
        break
      time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
  finally:
    process.kill()
    process.wait()


def chunk(delta, finish=None, usage=None):
  body = {
    "id": "x",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "reverser",
    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    "usage": usage,
  }
  return f"data: {json.dumps(body)}\n\n"


async def words(prompt, fault, script):
  fitting = (said.split(" ") for words, said in script if words in prompt)
  answer = next(fitting, prompt.split()[::-1])
  if fault == "m":
    yield 'data: {"id": "x", "choices": [{"del\n\n'
    return
  for n, word in enumerate(answer):
    if fault == "c" and n == 1:
      return
    yield chunk({"content": word if n == 0 else f" {word}"})
    await asyncio.sleep(0.005)
  tokens = len(answer)
  if fault == "z":
    tokens = 0
  usage = {
    "prompt_tokens": tokens,
    "completion_tokens": tokens,
    "total_tokens": 2 * tokens,
  }
  if fault == "u":
    del usage["completion_tokens"]
  yield chunk({}, "stop", None if fault == "n" else usage)
  yield "data: [DONE]\n\n"


def app(log, faults, script=()):
  counted = itertools.count()

  async def complete(request):
    body = await request.json()
    prompt = body["messages"][-1]["content"]
    with log.open("a") as file:
      file.write(prompt + "\n")
    fault = faults[next(counted) % len(faults)]
    code = {"4": 429, "5": 500, "b": 400, "g": 504}.get(fault)
    if code:
      headers = {"retry-after": "0.01"} if code == 429 else {}
      return JSONResponse({"error": {"message": "no"}}, code, headers)
    if fault in "th":
      await asyncio.sleep(STALL if fault == "t" else 3600)
    return StreamingResponse(
      words(prompt, fault, script), media_type="text/event-stream"
    )

  async def ready(request):
    del request
    return JSONResponse({})

  routes = [
    Route("/v1/chat/completions", complete, methods=["POST"]),
    Route("/ready", ready),
  ]
  return Starlette(routes=routes)


if __name__ == "__main__":
  port, log, faults, script = sys.argv[1:]
  uvicorn.run(
    app(pathlib.Path(log), faults, json.loads(script)),
    port=int(port),
    log_level="critical",
  )
