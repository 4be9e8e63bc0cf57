"""A pool of actors with a costly start, over which work is spread, in order and as it comes."""

import math

import rlflow.engine as ray
from rlflow.engine.util import ActorPool


@ray.remote
class Primes:
    def __init__(self, limit):
        sieve = bytearray([1]) * limit
        sieve[:2] = b"\0\0"
        for i in range(2, math.isqrt(limit) + 1):
            if sieve[i]:
                sieve[i * i :: i] = bytes(len(range(i * i, limit, i)))
        self.primes = [i for i in range(limit) if sieve[i]]

    def factors(self, number):
        found = []
        for prime in self.primes:
            while number % prime == 0:
                number //= prime
                found.append(prime)
        return found


def main():
    pool = ActorPool([Primes.remote(2000) for _ in range(2)])
    numbers = list(range(1000, 1020))
    ordered = list(pool.map(lambda actor, number: actor.factors.remote(number), numbers))
    unordered = sorted(pool.map_unordered(lambda actor, number: actor.factors.remote(number), numbers))
    for number in (360, 720):
        pool.submit(lambda actor, value: actor.factors.remote(value), number)
    one_by_one = []
    while pool.has_next():
        one_by_one.append(pool.get_next())
    return {"ordered": ordered, "same": unordered == sorted(ordered), "one by one": one_by_one}


if __name__ == "__main__":
    ray.init()
    print(main())
