"""`python -m cifar VERB …` is the same as `cifar VERB …`."""

from cifar.commands.main import main

if __name__ == "__main__":
    main()
