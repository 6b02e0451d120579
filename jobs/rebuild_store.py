"""Refill an emptied store from the tag topic.

    python jobs/rebuild_store.py
    ray job submit --working-dir . -- python jobs/rebuild_store.py

Settings come from the environment. Consumers may run: the store refuses them until it is complete again.
After an interruption, run it again. Exit 2, with one line, if the store was not emptied.
"""

from __future__ import annotations

import sys

from tagstream.core.errors import TagstreamError
from tagstream.ops.rebuild import run_rebuild
from tagstream.settings import load_settings


def main() -> None:
    try:
        count = run_rebuild(load_settings(), lambda progress: print(progress, flush=True))
    except TagstreamError as error:
        print(f"rebuild_store: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"the store is whole again: {count:,} records")


if __name__ == "__main__":
    main()
