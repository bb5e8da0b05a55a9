"""Read one object, and say where its bytes came from.

    python minimal.py penstock://models/llama/config.json

The node of this machine is asked, or whoever PENSTOCK_ADDRESS names.
"""

import sys

import penstock


def main(url: str) -> None:
    """Read an object whole and print what is known of it."""
    with penstock.connect() as cache:
        info = cache.stat(url)
        content = cache.read(url)
        sources = cache.stats()["source"]
    print(f"{url}: {info.size:,} bytes, version {info.version}")
    print(f"read {len(content):,} bytes, by source: {sources}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except penstock.PenstockError as error:
        sys.exit(f"{error.name}: {error}")
