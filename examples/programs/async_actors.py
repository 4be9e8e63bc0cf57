"""An actor with `async` methods collects requests of many callers and answers them in batches."""

import asyncio

import rlflow.engine as ray

NOT_INLINE = "its calls wait for each other, and inline they run one after the other"
CLIENTS, REQUESTS, BATCH = 3, 4, 4


@ray.remote
class Batcher:
    def __init__(self):
        self.waiting = []
        self.sizes = []

    async def square(self, number):
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((number, answer))
        if len(self.waiting) == BATCH:
            await self.run()
        return await answer

    async def run(self):
        batch, self.waiting = self.waiting, []
        self.sizes.append(len(batch))
        await asyncio.sleep(0.01)  # as if a model took its time; further requests come in meanwhile
        for number, answer in batch:
            answer.set_result(number * number)

    async def batch_sizes(self):
        return self.sizes


@ray.remote
def client(batcher, first):
    return ray.get([batcher.square.remote(first + i) for i in range(REQUESTS)])


async def await_all(refs):
    """References can be awaited in the program's own event loop, too."""
    return await asyncio.gather(*refs)


def main():
    batcher = Batcher.remote()
    squares = ray.get([client.remote(batcher, 10 * number) for number in range(CLIENTS)])
    again = asyncio.run(await_all([batcher.square.remote(number) for number in range(BATCH)]))
    return {"squares": squares, "again": again, "sizes": ray.get(batcher.batch_sizes.remote())}


if __name__ == "__main__":
    ray.init()
    print(main())
