"""What processes.py imports before it forks: nothing that starts a thread or, like wandb, makes a temporary folder."""

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg  # noqa: F401
import optuna
import scipy.special  # noqa: F401
import sklearn.datasets
import torch

import cifar.commands.app.cli
import cifar.experiment.run
import cifar.reports.report  # noqa: F401

torch.optim.Adam([torch.zeros(1)])  # imports torch._dynamo
optuna.logging.set_verbosity(optuna.logging.WARNING)
# imports sqlalchemy's part for SQLite and alembic
optuna.create_study(storage="sqlite:///:memory:").ask({"lr": optuna.distributions.FloatDistribution(0, 1)})
sklearn.datasets.load_digits()
