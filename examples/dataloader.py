"""Train on shards that lie in Penstock: a small loop over epochs, with workers.

    PENSTOCK_ADDRESS=gpu-17:7400 python examples/dataloader.py penstock://datasets/pets/

The shards are tar files after WebDataset's convention: of each sample a picture, ``jpg``, and the
number of its class, ``cls``. The model here is a toy, and looks at nothing but how often each byte
occurs in a picture's file; what is around it is what a training has.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader

from penstock.data import ShardStream

CLASSES = 10


def decode(sample: dict[str, bytes]) -> tuple[torch.Tensor, int]:
    """Make of a sample what the model takes. It runs in the workers."""
    octets = torch.frombuffer(bytearray(sample["jpg"]), dtype=torch.uint8)
    return torch.bincount(octets, minlength=256) / len(octets), int(sample["cls"]) % CLASSES


def main() -> None:
    """Train for some epochs, and print how it goes."""
    parser = argparse.ArgumentParser(description="Train on shards that lie in Penstock.")
    parser.add_argument("url", help="of the shards: a prefix, as penstock://datasets/pets/")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()

    samples = ShardStream(options.url, shuffle=True, seed=7, transform=decode)
    loader = DataLoader(
        samples,
        batch_size=16,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    model = nn.Linear(256, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    for epoch in range(options.epochs):
        samples.set_epoch(epoch)
        count, total = 0, 0.0
        for features, labels in loader:
            loss = nn.functional.cross_entropy(model(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(labels)
            total += float(loss) * len(labels)
        print(f"epoch {epoch}: {count} samples, loss {total / count:.3f}")


if __name__ == "__main__":
    main()
