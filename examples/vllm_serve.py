"""Serve a model that lies in Penstock with vLLM: what a container's start-up would run.

    python vllm_serve.py penstock://models/llama --tensor-parallel-size 8

It brings the model into this machine's tiers, so that all ranks find it near, brings what vLLM
reads before it loads, and becomes vLLM. Options that it does not know are vLLM's. With --print it
says the command and ends.
"""

import argparse
import json
import os
import shlex
import subprocess

import penstock


def command_for(url: str) -> list[str]:
    """Bring the model's configuration, and return the words of vLLM's command."""
    told = subprocess.run(
        ["penstock", "vllm-args", url, "--json"], check=True, stdout=subprocess.PIPE
    )
    return list(json.loads(told.stdout)["command"])


def main() -> None:
    """Prepare a model, and serve it."""
    parser = argparse.ArgumentParser(description="Serve a model of Penstock's with vLLM.")
    parser.add_argument("url", help="of the model, as penstock://models/llama")
    parser.add_argument("--print", action="store_true", help="only say the command")
    options, of_vllm = parser.parse_known_args()

    with penstock.connect() as cache:
        report = cache.warmup([f"{options.url}/"], to="self")
    if report.failed_objects:
        raise SystemExit(f"{report.failed_objects} files could not be brought in")
    command = [*command_for(options.url), *of_vllm]
    if options.print:
        print(shlex.join(command))
    else:
        os.execvp(command[0], command)  # noqa: S606 - its words are ours and the user's


if __name__ == "__main__":
    main()
