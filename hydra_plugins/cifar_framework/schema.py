"""What Hydra imports by itself wherever it starts, a notebook's compose("config") too: it registers the schema.

Hydra looks into every package of the namespace `hydra_plugins`.
"""

import cifar.experiment.config  # noqa: F401
