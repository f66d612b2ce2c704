"""Packaging of Pith: what is installed, with which extras.

`make install` is the usual way in: it adds the exact pins of constraints.txt.
"""

from setuptools import find_packages, setup

setup(
  name="pith",
  # Below 0.10 on purpose: transformers 5 asks an installed package named
  # `kernels` for its version, and one of ours must not pass for the other.
  version="0.1.0",
  description="A large reasoning teacher to a small reasoning model, in JAX.",
  license="Apache-2.0",
  license_files=["LICENSE"],
  author="The Pith Authors",
  python_requires=">=3.12",
  packages=find_packages(
    include=[
      "kernels",
      "kernels.*",
      "research",
      "research.*",
      "experiments",
      "experiments.*",
    ]
  ),
  package_data={"": ["*.css", "*.js", "*.html", "*.json"]},
  install_requires=[
    "absl-py",
    "array_record",
    "bm25s",
    "chess",
    "flax",
    "grain",
    "jax>=0.11.2,<0.12",
    "jinja2",
    "math-verify",
    "matplotlib",
    "ml_collections",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "qwix",
    "reasoning_gym",
    "rich",
    "tensorboardX",
    "tensorflow-datasets",
    "tokenizers",
  ],
  extras_require={
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "hf": ["huggingface_hub", "safetensors"],
    "serve": ["openai", "starlette", "uvicorn"],
    "edge": ["gguf"],
    "dev": [
      "hypothesis",
      "ipykernel",
      "nbclient",
      "nbformat",
      "nbstripout",
      "pre-commit",
      "pyright[nodejs]",
      "pytest",
      "pytest-xdist",
      "ruff",
      "scipy",
    ],
  },
)
