"""A small student goes to medical school, and what it forgets there.

A 0.6 M byte-level student is pretrained from scratch on grade-school text, then
fine-tuned on worked answers. From there three students go on, each for as many
rows and under a learning rate that is warmed up anew: `domain_only`
reads MedQuAD's questions with their answers and a textbook; for `replayed` one
document in five is general text; `dual` takes the domain in while it is
distilled on, m CE(domain) + (1 - m) KL(teacher || student) on GSM8K's worked
answers, m = 1/2. The teacher has 3.1 M parameters and the same general
schooling (experiments/configs/general_teacher.py).

Hypotheses, stated before the first run; nats are a byte, of held-out answers.
The dual process of that run had no teacher, but GSM8K's answers again in a
mixture, and missed the second half of 4 by 0.006.
  1. All three gain at least 0.30 nats on MedQuAD.
  2. Domain-only forgets: at least 0.10 nats on GSM8K.
  3. Replay halves what is forgotten, and costs at most 0.05 nats on MedQuAD.
  4. The dual process forgets nothing (its interval reaches zero or less), and
     costs at most 0.10 nats on MedQuAD.
  5. PubMedQA by choice, from the question alone, is out of reach: no student is
     above the majority's answer. At this size that is expected, and no result.

Command.  python -m experiments.run --workdir=runs/domain_medicine \
            --config=experiments/configs/domain_medicine.py \
            --config.data_dir=DIR
          after experiments/configs/general_teacher.py has run. DIR holds
          gsm8k/, medquad/, openstax_ap2e/ and pubmedqa/.
Cost.     Five to six minutes of one CPU core a seed. `:test` takes one.
Source.   Re-warming and replay: Ibrahim et al. 2024 (2403.08763). Forgetting:
          Chaudhry et al. 2018 (1801.10112). MedQuAD: Ben Abacha and
          Demner-Fushman 2019. PubMedQA: Jin et al. 2019 (1909.06146).
"""

from ml_collections import ConfigDict

BLOCK = {"block": 2048}
LENGTH = 512  # two thirds of GSM8K fit, and one in five answers of MedQuAD
HELD_OUT = {
  "gsm8k": "{worked_heldout}/traces.jsonl",
  "medquad": "{medquad_heldout}/corpus.jsonl",
}
AFTER = ("domain_only", "replayed", "dual")
TEACHER = "runs/general_teacher/export/checkpoint"
GENERAL = {"path": "{general}/corpus.jsonl"}
WORKED = {"path": "{worked}/traces.jsonl"}
DOMAIN = [{"path": "{medquad}/corpus.jsonl"}, {"path": "{book}/corpus.jsonl"}]


def worked(split, count, args):
  """Worked answers to GSM8K's questions, whose teachers are people."""
  task = {"task": "research.tasks.gsm8k", "split": split, "args": args}
  return {
    "stage": "experiments.stages.annotate",
    "problems": task,
    "count": count,
    "teacher": "research.teachers.solver",
  }


def corpus(**args):
  """Records of a published set or a file."""
  return {"stage": "experiments.stages.corpus", **args}


def distill(corpora, steps, rate, start=None):
  """A student on a mixture; the rate is warmed up, whatever it was before."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": corpora,
    "loss": {"name": "research.losses.supervised", "args": BLOCK},
    "rows": 8,
    "length": LENGTH,
    "shards": 4,
    "optimizer": {"learning_rate": rate, "warmup": 10, "floor": 0.1},
    "loop": {"steps": steps, "save_every": 50},
    "start": start,
  }


def compared():
  """Each student of medicine beside those before it, and beside each other."""
  before = [(s, earlier) for s in AFTER for earlier in ("tuned", "pretrained")]
  return [*before, ("replayed", "domain_only"), ("dual", "domain_only")]


def score(students, name, path):
  """The cost of held-out answers."""
  return {
    "stage": "experiments.stages.score",
    "students": students,
    "corpus": path,
    "rows": 16,
    "length": LENGTH,
    "prefix": f"{name}/",
    "pairs": compared(),
  }


def choose(students, asked, count):
  """Questions of PubMedQA, answered by choice."""
  return {
    "stage": "experiments.stages.choose",
    "students": students,
    "problems": asked,
    "count": count,
    "answers": ("#### yes", "#### no", "#### maybe"),
    "per_token": True,
    "rows": 48,
    "length": 320,
    "prefix": "pubmedqa/",
    "pairs": compared(),
  }


def corpora(test, asked, data_dir):
  """What is read and what is held out; nothing read meets what is asked."""
  few = lambda count: 64 if test else count
  args = ConfigDict({"data_dir": data_dir})
  held_out = [
    {"problems": asked, "count": 394},
    {"path": "{worked_heldout}/traces.jsonl"},
    {"path": "{medquad_heldout}/corpus.jsonl"},
  ]
  clean = {
    "gates": [{"name": "research.annotation.decontaminate"}],
    "held_out": held_out,
    "form": "document",
    "data_dir": data_dir,
  }
  return {
    "worked": worked("train", few(7473), args),
    "worked_heldout": worked("test", few(300), args),
    "general": corpus(path="{worked}/traces.jsonl", form="document"),
    "medquad_heldout": corpus(
      published="medquad", split="test", count=few(1294), data_dir=data_dir
    ),
    "medquad": corpus(published="medquad", count=few(3000), **clean),
    "book": corpus(published="openstax", **clean),
  }


def students(test):
  """Pretrained, tuned, and from there three ways to read medicine."""
  replayed = [{**d, "weight": 2.0} for d in DOMAIN] + [GENERAL]
  long, short = (4, 4) if test else (140, 50)
  read = lambda corpora: distill(corpora, short, 2e-3, "tuned")
  teacher = {"stage": "experiments.stages.checkpoint", "directory": TEACHER}
  if test:  # which has none at hand
    teacher = distill([WORKED], 2 * short, 3e-3)
  return {
    "teacher": teacher,  # at once, or there is none
    "pretrained": distill([GENERAL], long, 3e-3),
    "tuned": distill([WORKED], short, 1e-3, "pretrained"),
    "domain_only": read(DOMAIN),
    "replayed": read(replayed),
    "dual": dual(short),
  }


def dual(steps):
  """The domain, and beside it what the teacher says of worked answers."""
  rest = distill([], steps, 2e-3, "tuned")
  del rest["corpora"]
  loss = lambda name: {"name": f"research.losses.{name}", "args": BLOCK}
  return rest | {
    "stage": "experiments.stages.dual",
    "domain": DOMAIN,
    "general": [WORKED],
    "m": 0.5,
    "reading": loss("supervised"),
    "teacher": "teacher",
    "loss": loss("forward_kl"),
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds, on the real files."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.data_dir = ""  # or the environment variable PITH_DATA
  config.tokenizer = "bytes"
  width, layers = (32, 1) if test else (128, 3)
  shape = {"width": width, "layers": layers, "context": LENGTH}
  config.model = {"preset": "tiny", **shape}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  data_dir = config.get_ref("data_dir")
  args = ConfigDict({"data_dir": data_dir, "passages": 0})
  task = "research.tasks.pubmedqa"
  asked = {"task": task, "split": "test", "args": args}
  stages = corpora(test, asked, data_dir) | students(test)
  names = ("pretrained", "tuned", *AFTER)
  for name, path in HELD_OUT.items():
    stages[f"score_{name}"] = score(names, name, path)
  stages["choose"] = choose(names, asked, 8 if test else 200)
  stages["forget"] = {
    "stage": "experiments.stages.forget",
    "orders": [("pretrained", "tuned", name) for name in AFTER],
    "columns": ("gsm8k/nats", "medquad/nats", "pubmedqa/accuracy"),
  }
  config.update(stages)
  config.stages = tuple(stages)
  return config
