"""What benchmarks of loading models start, and how they ask it."""
