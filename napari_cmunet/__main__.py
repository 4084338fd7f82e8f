"""``python -m napari_cmunet``: the same as the ``napari-cmunet`` command."""

import sys

from napari_cmunet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
