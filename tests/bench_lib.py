"""What the measuring parts of tests/bench share."""

import sys
import time


def wait(what, done):
    end = time.monotonic() + 30
    while not done():
        if time.monotonic() > end:
            sys.exit(f"bench: {what}: not within 30 s")
        time.sleep(0.02)


def row(what, ratio, target, medians):
    reached = "yes" if ratio <= target else "NO"
    print(f"{what:<58} {ratio:7.3f}   <= {target:<6.3f} {reached:<4} {medians}", flush=True)
