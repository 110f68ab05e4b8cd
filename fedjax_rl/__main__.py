"""`python -m fedjax_rl` is `fedjax-rl`."""

import sys

from fedjax_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())
