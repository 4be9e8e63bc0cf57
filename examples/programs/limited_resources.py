"""Tasks that ask for all CPUs run alone, tasks that ask for a fraction share one; an actor watches."""

import rlflow.engine as ray


@ray.remote(num_cpus=0)
class Watch:
    def __init__(self):
        self.inside = self.most = 0

    def enter(self):
        self.inside += 1
        self.most = max(self.most, self.inside)

    def leave(self):
        self.inside -= 1

    def most_at_once(self):
        return self.most


@ray.remote
def work(watch, number):
    ray.get(watch.enter.remote())
    total = sum(i * i for i in range(20_000))
    ray.get(watch.leave.remote())
    return number, total


def most_at_once(tasks, cpus):
    watch = Watch.remote()
    done = ray.get([work.options(num_cpus=cpus).remote(watch, number) for number in range(tasks)])
    return sorted(number for number, _ in done), ray.get(watch.most_at_once.remote())


def main():
    cpus = ray.cluster_resources()["CPU"]
    alone, most_alone = most_at_once(4, cpus)
    shared, most_shared = most_at_once(8, cpus / 2)
    return {"alone": alone, "most": most_alone, "shared": shared, "within the limit": most_shared <= 2}


if __name__ == "__main__":
    ray.init()
    print(main())
