"""A teacher of general ability, for the dual process of domain_medicine.

Hypothesis. A 3.1 M decoder, pretrained on grade-school text and tuned on worked
            answers as the student of experiments/configs/domain_medicine.py is,
            for longer and at a rate for its size, tells held-out answers for at
            least 0.2 nats a byte less than that student's 2.14. One seed: it is
            the one teacher of a run whose seeds are the students'.
Command.  python -m experiments.run --workdir=runs/general_teacher \
            --config=experiments/configs/general_teacher.py \
            --config.data_dir=DIR
          DIR holds gsm8k/.
Expected. experiments/results/distillation.md.
Cost.     13 minutes of one CPU core.
Source.   GSM8K: Cobbe et al. 2021 (2110.14168).
"""

from ml_collections import ConfigDict

from experiments.configs import domain_medicine as medicine


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds, on the real files."""
  test = arg == "test"
  config = ConfigDict()
  config.seed, config.data_dir, config.tokenizer = 0, "", "bytes"
  shape = {"width": 256, "layers": 4, "groups": 4, "mlp": 768}
  shape = {"width": 32, "layers": 1} if test else shape
  config.model = {"preset": "tiny", **shape, "context": medicine.LENGTH}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  args = ConfigDict({"data_dir": config.get_ref("data_dir")})
  few = lambda count: 64 if test else count
  long, short = (4, 4) if test else (240, 80)
  held_out = medicine.HELD_OUT["gsm8k"]
  stages = {
    "worked": medicine.worked("train", few(7473), args),
    "worked_heldout": medicine.worked("test", few(300), args),
    "general": medicine.corpus(path="{worked}/traces.jsonl", form="document"),
    "pretrained": medicine.distill([medicine.GENERAL], long, 2e-3),
    "tuned": medicine.distill([medicine.WORKED], short, 1e-3, "pretrained"),
    "score": {
      "stage": "experiments.stages.score",
      "students": ["pretrained", "tuned"],
      "corpus": held_out,
      "rows": 16,
      "length": medicine.LENGTH,
      "prefix": "gsm8k/",
      "pairs": [["tuned", "pretrained"]],
    },
    "export": {
      "stage": "experiments.stages.export",
      "student": "tuned",
      "dtype": "float32",
    },
  }
  config.update(stages)
  config.stages = tuple(stages)
  return config
