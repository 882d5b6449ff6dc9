"""What the performance page says, measured: `python -m benchmarks.NAME`, or all of them with `python -m benchmarks.all`."""
