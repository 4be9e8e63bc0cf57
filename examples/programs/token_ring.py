"""Actors that hold handles of each other and pass a token around, without the driver between them."""

import rlflow.engine as ray

MEMBERS, ROUNDS = 4, 5


@ray.remote
class Member:
    def __init__(self, number):
        self.number = number
        self.seen = 0

    def connect(self, following):
        self.following = following

    def take(self, token):
        """Adds itself and gives the token on; the answer is a reference to where it went next."""
        self.seen += 1
        token = [*token, self.number]
        if len(token) == MEMBERS * ROUNDS:
            return token
        return [self.following.take.remote(token)]

    def times_seen(self):
        return self.seen


def main():
    members = [Member.remote(number) for number in range(MEMBERS)]
    ray.get([member.connect.remote(members[(i + 1) % MEMBERS]) for i, member in enumerate(members)])
    answer = ray.get(members[0].take.remote([]))
    while len(answer) == 1:
        answer = ray.get(answer[0])
    result = {"path": answer[: 2 * MEMBERS], "seen": ray.get([member.times_seen.remote() for member in members])}
    for member in members:
        ray.kill(member)  # each holds a handle of the next, so none of them would ever end by itself
    return result


if __name__ == "__main__":
    ray.init()
    print(main())
