"""Tasks that find an actor by its name instead of being given a handle."""

import rlflow.engine as ray


@ray.remote
class Scores:
    def __init__(self):
        self.best = {}

    def offer(self, level, score):
        self.best[level] = max(score, self.best.get(level, score))

    def read(self):
        return sorted(self.best.items())


@ray.remote
def play(level):
    scores = ray.get_actor("scores")
    for attempt in range(3):
        ray.get(scores.offer.remote(level, (level * 7 + attempt * 5) % 11))


def main():
    scores = Scores.options(name="scores").remote()
    same = Scores.options(name="scores", get_if_exists=True).remote()
    ray.get([play.remote(level) for level in range(4)])
    result = {"read through another handle": ray.get(same.read.remote())}
    try:
        Scores.options(name="scores").remote()
    except ValueError:
        result["second of that name"] = "refused"
    ray.kill(scores)
    try:
        ray.get(same.read.remote())
    except ray.exceptions.RayActorError:
        result["after kill"] = "dead"
    try:
        ray.get_actor("nobody")
    except ValueError:
        result["unknown name"] = "refused"
    return result


if __name__ == "__main__":
    ray.init()
    print(main())
