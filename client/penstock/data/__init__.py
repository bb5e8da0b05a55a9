"""PyTorch datasets over shards that lie in the cache: safetensors, tar (WebDataset), Parquet.

    from penstock.data import ShardStream

    samples = ShardStream("penstock://images/train/", shuffle=True, seed=7)
    for epoch in range(10):
        samples.set_epoch(epoch)
        for batch in DataLoader(samples, batch_size=64, num_workers=8):
            ...

`ShardStream` reads shards from the front to the back, `Shards` gives samples by number, in the
order of a `ShardSampler`. All of them pickle as the few words that they were made of; each process
that reads connects by itself, once.
"""

from penstock.data.sampler import ShardSampler
from penstock.data.shards import Shards
from penstock.data.stream import ShardStream

__all__ = ["ShardSampler", "ShardStream", "Shards"]
