"""`python -m bench.soak.jumping FILE serve …`: a proxy whose clock is wrong by as many seconds as the file says."""

import sys
import time
from pathlib import Path

from proxy.cli import main
from proxy.clock import SystemClock

if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    SystemClock.wall = staticmethod(lambda: time.time() + float(file.read_text(encoding="ascii")))
    main()
