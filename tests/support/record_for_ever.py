"""Record rows until somebody kills this process: folder, number of the run, first row.

Rows come in passes of random sizes, y being the number of the run; after each flush it prints how
many rows of the stream are safe.
"""

import itertools
import random
import sys
from pathlib import Path

from lab.recording.recorder import RowRecorder
from recorded_passes import described, measured

Y_SIZE = 4096  # a chunk is 128 rows: chunks fill up and begin


def main(folder: Path, run: int, first: int) -> None:
    description = described(Y_SIZE)
    with RowRecorder(folder, lambda _: description, bench="", ended=lambda _: False) as recorder:
        for number in itertools.count():
            rows = random.randrange(1, 60)
            recorder.add(*measured(first, rows, value=float(run), y_size=Y_SIZE))
            first += rows
            if number % 3 == 0:
                recorder.flush()
                print(first, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
