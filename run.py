"""Train and evaluate one configuration, or with -m many: python run.py model=resnet50 lr=0.01 is `cifar run …`."""

import sys

from cifar.commands.main import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
