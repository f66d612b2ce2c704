"""Pure functions over frozen pytrees: models, losses, algorithms, search."""
