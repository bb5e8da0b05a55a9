"""Real parts as processes of their own: for the tests, the demo and the benchmarks.

Nothing that serves or reads imports this package.
"""
