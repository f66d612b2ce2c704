"""One file a question: a config whose stages are the answers compared."""
