"""ELMo's LSTM beside PyTorch's: of the same size with a projection, and without one at an equal number of products.

python -m bench.lstm

Forward and backward over both directions, one thread, batch 32, 20 steps. The three take turns, so that a busy machine
slows all of them, and the lower quartile of each is told.
"""

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from elision.model.lstm import ProjectedLSTM

ROWS, STEPS, ROUNDS = 32, 20, 15
SIZES = ((512, 64), (512, 128), (1024, 128), (2048, 256))


def contestants(cell: int, projection: int) -> dict[str, Callable[[], Tensor]]:
    """Return by name what runs one forward pass; all read inputs as wide as the projection."""
    ours = ProjectedLSTM(projection, cell, projection, cell_clip=3.0, projection_clip=3.0)
    inputs = torch.randn(2, STEPS, ROWS, projection, requires_grad=True)
    hidden, memory = torch.zeros(2, ROWS, projection), torch.zeros(2, ROWS, cell)
    projected = torch.nn.LSTM(projection, cell, proj_size=projection, bidirectional=True)
    # 4 k (k + p) products of a plain cell of size k are as many as those of the projected one.
    products = 8 * cell * projection + cell * projection
    size = round((-projection + (projection**2 + products) ** 0.5) / 2)
    plain = torch.nn.LSTM(projection, size, bidirectional=True)
    sequence = torch.randn(STEPS, ROWS, projection, requires_grad=True)
    return {
        "ours, with clipping": lambda: ours(inputs, hidden, memory)[0],
        "nn.LSTM, proj_size": lambda: projected(sequence)[0],
        f"nn.LSTM, plain {size}": lambda: plain(sequence)[0],
    }


def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    # PyTorch says that its projected layer has no oneDNN kernel.
    warnings.filterwarnings("ignore", message="LSTM with projections")
    print(f"{'cell / projection':18} {'layer':20} {'train ms':>9} {'forward ms':>11} {'ours / this':>12}")
    for cell, projection in SIZES:
        runs = contestants(cell, projection)
        train: dict[str, list[float]] = {name: [] for name in runs}
        forward: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                started = time.perf_counter()
                run().sum().backward()
                train[name].append(time.perf_counter() - started)
                with torch.no_grad():
                    started = time.perf_counter()
                    run()
                    forward[name].append(time.perf_counter() - started)
        quartile = {name: 1e3 * sorted(times)[ROUNDS // 4] for name, times in train.items()}
        for name in runs:
            ratio = next(iter(quartile.values())) / quartile[name]
            alone = 1e3 * sorted(forward[name])[ROUNDS // 4]
            print(
                f"{cell:>6} / {projection:<9} {name:20} {quartile[name]:9.1f} {alone:11.1f} {ratio:12.2f}", flush=True
            )


if __name__ == "__main__":
    main()
