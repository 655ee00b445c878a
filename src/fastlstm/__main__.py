"""``python -m fastlstm`` is the command ``fastlstm``."""

import sys

from fastlstm.cli import main

sys.exit(main())
