"""Stages: `Config`, and run(config, inputs, workdir) -> outputs, in each file.

`inputs` maps the names of finished stages to their folders and outputs; what a
stage returns is JSON and is written down when it has finished.
"""
