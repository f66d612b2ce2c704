"""The whole tiny run, its defaults spelled out, and how fields are seen."""

import json

from tests.experiments import tiny

CONFIG = json.loads(json.dumps(tiny.get_config().to_dict()))
# What the tiny run leaves as it is.
LANGUAGE = {"name": "research.rewards.language", "weight": 1.5}
CONFIG["reinforced"] |= {
  "reference": None,
  "refresh": None,
  "critic": None,
  "process": None,
  "epochs": 1,
  "minibatches": 1,
  "before": "sampler",
  "lag": 0,
  "patience": 60.0,
  "block": 512,
  "lora": None,
  "base_bits": None,
}
CONFIG["reinforced"]["rollout"] |= {
  "truncated": "graded",
  "refills": None,
  "between": None,
  "turns": None,
  "bonuses": [LANGUAGE | {"args": {"scripts": ["LATIN"]}}],
}

# Where a field is seen, STAGE/SIGHT, by the first pattern that fits its name.
# A "*" is the field's own stage.
SIGHTS = {
  "seed": "distilled/inputs",
  "tokenizer": "distilled/inputs",
  "model.context": "distilled/error",
  "model.*": "distilled/step",
  "mesh.*": "distilled/step",
  # the other task's reward finds no trace of it correct
  "annotate.problems.task": "*/error",
  "annotate.*": "*/records",
  "evaluate.rows": "*/samplings",
  "evaluate.temperature": "*/samplings",
  "evaluate.top_p": "*/samplings",
  "evaluate.*": "*/records",
  "climbed.loss.name": "*/error",
  "climbed.levels.*.problems.task": "*/inputs",
  "climbed.levels.*.problems.*": "*/samplings",
  "climbed.levels.*": "*/inputs",
  "climbed.probe.[ct]*": "*/samplings",
  "climbed.probe.new_tokens": "*/samplings",
  "climbed.probe.*": "*/inputs",
  "climbed.review": "*/inputs",
  "polished.share.loss.name": "*/error",
  "*.loop.*": "*/loop",
  "polished.start": "*/frozen",
  "*.start": "*/state",
  "*.teacher": "*/frozen",
  "*_bits": "*/frozen",
  "*.lora.rank": "*/state",
  "*.lora.targets.*": "*/state",
  "*.lora.*": "*/step",
  "answer_only.loss.name": "*/error",
  "distilled.loss.name": "*/error",
  "*.loss.*": "*/step",
  "*.optimizer.*": "*/step",
  "*.microbatches": "*/step",
  "*.algorithm.*": "*/step",
  "reinforced.reference": "*/begun",
  "reinforced.refresh": "*/begun",
  "reinforced.before": "*/begun",
  "reinforced.lag": "*/begun",
  "reinforced.epochs": "*/inputs",
  "reinforced.minibatches": "*/inputs",
  "reinforced.block": "*/step",
  "reinforced.lora": "*/state",
  "reinforced.rollout.bonuses.0.name": "*/error",
  "*.rollout.rows": "*/samplings",
  "*.rollout.temperature": "*/samplings",
  "*.rollout.*": "*/inputs",
  "*.advantage.*": "*/inputs",
  "*.problems.*": "*/inputs",
  "*.pool": "*/inputs",
  "*.corpora.*": "*/inputs",
  "*.share.*": "*/inputs",
  "*.domains.*.weight": "*/inputs",
  "*.rows": "*/inputs",
  "*.length": "*/inputs",
  "*.shards": "*/inputs",
}
# What a field becomes where it is no free number.
OTHERS = {
  "stages.*": "experiments",
  "annotate.stage": "experiments.stages.distill",
  "*.stage": "experiments.stages.annotate",
  "model.preset": "qwen3_0_6b",
  "model.context": 20,
  "annotate.teacher": "tests.experiments.terse",
  "answer_only.corpora.0.path": "{annotate}/traces.jsonl",
  "*.corpora.0.path": "{annotate}/answers.jsonl",
  "*.corpora.1.path": "{annotate}/traces.jsonl",
  "polished.loss.name": "research.losses.forward_kl",
  "*.loss.name": "research.losses.sampled_reverse_kl",
  "*.per": "record",
  "*.passed": 0.0,
  "reinforced.reference": "distilled",
  "reinforced.refresh": 3,
  "reinforced.critic": {"optimizer": {"learning_rate": 1e-3}},
  "reinforced.process": {"optimizer": {"learning_rate": 1e-3}},
  "reinforced.before": "trainer",
  "reinforced.patience": 0.0,
  "reinforced.lora": {"rank": 2, "alpha": 4.0},
  "reinforced.base_bits": 8,
  "*.truncated": "zero",
  "*.refills": 1,
  "*.between": [0.3, 0.6],
  "*.turns": 2,
  "*.bonuses.0.name": "research.rewards.form",
  "*.scripts.0": "GREEK",
  "*.every": 4,
  "*.patience": 6,
  "*.schedule": "linear",
  "*.start": "annotate",
  "*.teacher": "annotate",
  "reinforced.problems.task": "research.tasks.chain",
  "*.problems.task": "tests.experiments.parity",
  "evaluate.suites.1.problems.split": "test",
  # far enough for four problems to differ
  "evaluate.suites.*.problems.args.lengths.1": 8,
  "climbed.levels.*.problems.args.lengths.1": 8,
  "*.problems.split": "ood",
  "*.algorithm.name": "tests.experiments.plain",
  "*.aggregate": "sequence",
  "*.prefix": "other/",
  "*.students.*": "distilled",
  "*.pairs.0.*": "reinforced",
  "*.ks.0": 1,
  "*.best": "-loss",
  "*.shards": 4,
  "*.rows": 16,
  "*.head_dim": 16,
  "*.block": 128,
  "*.targets.*": "up",
  "*.base_bits": 4,
  "*.teacher_bits": 8,
}
# These are seen in the plan alone, which refuses the other value.
PLANNED = (
  "*.stage",
  "stages.*",
  "evaluate.students.[02]",
  "reinforced.critic",  # GRPO has no use for either
  "reinforced.process",
  "reinforced.patience",  # see test_beside
  "*.rollout.turns",  # goes with no bonuses, see test_rollouts
  "reinforced.base_bits",  # beneath adapters alone
)
# Arguments of plug-ins, which the plug-in itself refuses.
FREE = ("*.args", "*.advantage")
