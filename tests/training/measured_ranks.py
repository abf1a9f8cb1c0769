"""Compare two processes of one thread with one process of two: python -m tests.training.measured_ranks [MODEL…]

Each takes the training steps of `cifar run` on the real CIFAR-10, in turn, so that whatever else the machine does slows
both. Prints a table for docs/scaling.md: images per second, medians over the rounds, and the ratio's range. With
`--apart` the two processes have a run each, as a sweep's jobs side by side: the table of docs/speed.md.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median

import torch
import torch.distributed as dist

WARM_UP_STEPS = 3


def serve(connection: Connection, words: list[str], rank: int, count: int, meeting: str | None) -> None:
    """Take as many steps as are asked for, and send the seconds, until asked for none."""
    from cifar.commands.measuring.bench import our_loop
    from cifar.experiment.typed.compose import compose_words

    if meeting is not None and count > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    contestant = our_loop(compose_words(words)[0])
    contestant.take_turn(WARM_UP_STEPS)
    connection.send(torch.get_num_threads())
    while num_steps := connection.recv():
        connection.send(contestant.take_turn(num_steps).total)


@dataclass(frozen=True)
class Contestant:
    """The processes of one run, or of one run each where they have no meeting place."""

    processes: list[BaseProcess]
    connections: list[Connection]

    @classmethod
    def begin(cls, words: list[str], count: int, num_threads: int, meeting: str | None) -> "Contestant":
        """Start the processes and wait until they have warmed up."""
        context, processes, connections = get_context("spawn"), list[BaseProcess](), list[Connection]()
        for rank in range(count):
            ours, theirs = context.Pipe()
            arguments = (theirs, [*words, f"device.threads={num_threads}"], rank, count, meeting)
            processes.append(context.Process(target=serve, args=arguments, daemon=True))
            processes[-1].start()
            connections.append(ours)
        assert [connection.recv() for connection in connections] == [num_threads] * count
        return cls(processes, connections)

    def take_turn(self, num_steps: int) -> float:
        """Take the steps and return the seconds."""
        for connection in self.connections:
            connection.send(num_steps)
        return max(float(connection.recv()) for connection in self.connections)

    def end(self) -> None:
        """Stop the processes."""
        for connection, process in zip(self.connections, self.processes, strict=True):
            connection.send(0)
            process.join()


def compare(model: str, options: argparse.Namespace) -> str:
    """Return the model's row of the table."""
    words = [f"model={model}", f"batch_size={options.batch_size}", "device=cpu", "tracker=none", *options.set]
    with tempfile.TemporaryDirectory() as folder:
        meeting = None if options.apart else f"{folder}/meeting"
        runs = {count: Contestant.begin(words, count, 2 // count, meeting) for count in (1, 2)}
        rates: dict[int, list[float]] = {1: [], 2: []}
        for number in range(options.rounds):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                num_images = options.batch_size * options.steps * (count if options.apart else 1)
                rates[count].append(num_images / runs[count].take_turn(options.steps))
        for run in runs.values():
            run.end()
    ratios = sorted(two / one for one, two in zip(rates[1], rates[2], strict=True))
    one, two = median(rates[1]), median(rates[2])
    return f"| {model} | {one:.0f} | {two:.0f} | {median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) |"


def main() -> None:
    """Compare for every model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet50", "vgg16", "resnet18", "speednet"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="in every round")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--apart", action="store_true", help="two runs instead of one in two processes")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="more of cifar run's words")
    options = parser.parse_args()
    print("| model | one process, two threads | two processes, one thread each | ratio, median (range) |")
    print("|---|---|---|---|")
    for model in options.models:
        print(compare(model, options), flush=True)
    print(f"Load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
