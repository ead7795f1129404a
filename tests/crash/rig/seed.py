"""Where the drawn parts of the campaign begin; `SEED=…` moves all of them."""

import os

SEED = int(os.environ.get("SEED", "20261124"))
