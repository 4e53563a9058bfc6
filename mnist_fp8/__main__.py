"""``python -m mnist_fp8``."""

import sys

from mnist_fp8.cli.main import main

sys.exit(main())
