"""A process that writes to a store file for ever; run by test_crash.py, which kills it.

Prints the number of each round when its records are safe from a SIGKILL.
"""

import os
import signal
import sys
from pathlib import Path

from reqon.files import arm
from reqon.stores.file import FileStore
from reqon.stores.store_file import StoreFile

KEYS = 40


def record(number: int) -> dict[str, object]:
    return {"number": number, "text": "x" * (number % 97)}


def main(path: Path, failpoint: str) -> None:
    file = StoreFile(path)
    file.open()
    store = FileStore("s", file)
    first = 1 + max((int(r["number"]) for r in store.records()), default=0)
    if failpoint:
        arm(failpoint, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    for number in range(first, 1 << 60):
        store.put(f"k{number % KEYS}", record(number))
        if number % 5 == 0:
            store.delete(f"k{(number + 1) % KEYS}")
            store.put(f"k{(number + 1) % KEYS}", record(number))
        store.flush()
        print(number, flush=True)
        if number % 20 == 0:
            file.fold()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
