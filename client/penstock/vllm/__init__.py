"""vLLM's weights out of the cache: load format ``penstock``.

Nothing here is imported by the rest of the library, and only `loader` imports vLLM.
"""
