"""Tasks that ask for all CPUs run alone, tasks that ask for half of them run two at a time at most."""

import time

import rlflow.engine as ray


@ray.remote
def work(number):
    # A task that waits in `get` gives its CPUs back, so this one waits for nobody while it is counted.
    start = time.monotonic()
    total = sum(i * i for i in range(20_000))
    return number, total, start, time.monotonic()


def most_at_once(spans):
    return max(sum(start <= begin < end for start, end in spans) for begin, _ in spans)


def run(tasks, cpus):
    done = ray.get([work.options(num_cpus=cpus).remote(number) for number in range(tasks)])
    return [number for number, *_ in done], most_at_once([(start, end) for *_, start, end in done])


def main():
    cpus = ray.cluster_resources()["CPU"]
    alone, most_alone = run(4, cpus)
    shared, most_shared = run(8, cpus / 2)
    return {"alone": alone, "most": most_alone, "shared": shared, "within the limit": most_shared <= 2}


if __name__ == "__main__":
    ray.init()
    print(main())
