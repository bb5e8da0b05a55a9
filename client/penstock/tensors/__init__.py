"""Tensors out of the cache: the safetensors format, over objects. See `penstock.safetensors`."""
