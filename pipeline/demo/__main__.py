"""``python -m pipeline.demo``: makes the demo corpus."""

import sys

from pipeline.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
