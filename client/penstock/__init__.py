"""Penstock: a distributed cache cluster that feeds GPU fleets from object storage."""
