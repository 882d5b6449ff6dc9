"""One file per command; each has `run(options) -> exit code`. Thin shells: the work is in the package."""
