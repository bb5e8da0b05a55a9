"""What holds for every test: chance that replays, and no test that depends on speed."""

from hypothesis import settings

settings.register_profile("penstock", deadline=None, derandomize=True)
settings.load_profile("penstock")
