"""All benches at default sizes (`make bench`): about twelve minutes on two cores.

python -m bench                      print the tables, write bench/results/DATE-HOST.json
python -m bench --write-readme       also put them into bench/README.md
python -m bench --only loader        a part of it
"""

import argparse
import os
import subprocess
import sys
from typing import Any

from bench import loader, pretrain, report

PARTS = ("loader", "pretrain", "prepare")


def prepare_table(megabytes: float, rounds: int) -> str:
    """Run `python -m bench.prepare` and return what it prints."""
    command = [sys.executable, "-m", "bench.prepare", "--megabytes", str(megabytes), "--rounds", str(rounds)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def main() -> None:
    """Run the parts, print, save."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of rounds of each training case (default 3)")
    parser.add_argument("--megabytes", type=float, default=5.0, help="text for the tokenising part (default 5)")
    parser.add_argument("--device", default="cpu", help="of the training part: cpu or cuda (default cpu)")
    parser.add_argument("--write-readme", action="store_true", help="put the results into bench/README.md")
    options = parser.parse_args()

    results: dict[str, Any] = {"machine": report.machine(options.device)}
    if "loader" in options.only:
        results["loader"] = loader.main([])
    if "pretrain" in options.only:
        common = ["--rounds", str(options.rounds), "--device", options.device]
        if options.device == "cpu":
            # Half precision at one shape tells whether the processor has units for it; it would double the time of all.
            results["pretrain"] = pretrain.main(["--shapes", "bert-mini", *common])
            larger = ["--shapes", "bert-base", "gpt2-small", "--precision", "float32"]
            results["pretrain"] += pretrain.main([*larger, *common])
        else:
            results["pretrain"] = pretrain.main([*common, "--precision", "bfloat16", "--length", "512", "--compile"])
    if "prepare" in options.only:
        results["prepare"] = prepare_table(options.megabytes, rounds=2)
        print(results["prepare"])
    print(f"written: {report.save(results)}")
    if options.write_readme:
        report.write_readme(results)
        print(f"written: {report.README}")


if __name__ == "__main__":
    main()
