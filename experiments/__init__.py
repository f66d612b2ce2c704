"""Programs, configs, launchers and benchmarks: where flags and configs end."""
