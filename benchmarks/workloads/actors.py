"""Calls of actors: one to one, one to many, many to many, with threads and with coroutines."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .registry import Step, workload

BATCH = 1000
SERVERS = 4
CLIENTS = 4


def _server_class(api: ModuleType, **options: Any) -> Any:
    class Server:
        def ping(self) -> bytes:
            return b"ok"

        def take(self, value: Any) -> bytes:
            return b"ok"

    return api.remote(**options)(Server) if options else api.remote(Server)


def _coroutine_server_class(api: ModuleType) -> Any:
    @api.remote
    class CoroutineServer:
        async def ping(self) -> bytes:
            return b"ok"

        async def take(self, value: Any) -> bytes:
            return b"ok"

    return CoroutineServer


def _client_class(api: ModuleType) -> Any:
    @api.remote
    class Client:
        def __init__(self, servers: list[Any]) -> None:
            self.servers = servers

        def ping_all(self, count: int) -> None:
            each = count // len(self.servers)
            api.get([server.ping.remote() for server in self.servers for _ in range(each)])

        def send_all(self, count: int) -> None:
            each = count // len(self.servers)
            value = api.put(0)
            api.get([server.take.remote(value) for server in self.servers for _ in range(each)])

    return Client


def _one_by_one(api: ModuleType, actor: Any) -> Step:
    def step() -> float:
        api.get(actor.ping.remote())
        return 1

    return step


def _in_batches(api: ModuleType, actor: Any) -> Step:
    def step() -> float:
        api.get([actor.ping.remote() for _ in range(BATCH)])
        return BATCH

    return step


@workload("actor call, sync", group="actors", unit="calls/s", latency=True)
def actor_sync(api: ModuleType) -> Iterator[Step]:
    yield _one_by_one(api, _server_class(api).remote())


@workload("actor calls, async", group="actors", unit="calls/s")
def actor_async(api: ModuleType) -> Iterator[Step]:
    yield _in_batches(api, _server_class(api).remote())


@workload("actor calls, 16 threads", group="actors", unit="calls/s")
def actor_concurrent(api: ModuleType) -> Iterator[Step]:
    yield _in_batches(api, _server_class(api, max_concurrency=16).remote())


@workload("actor calls, 1:n", group="actors", unit="calls/s")
def actor_one_to_many(api: ModuleType) -> Iterator[Step]:
    servers = [_server_class(api).remote() for _ in range(SERVERS)]

    def step() -> float:
        api.get([server.ping.remote() for server in servers for _ in range(BATCH // SERVERS)])
        return BATCH

    yield step


@workload("actor calls, n:n", group="actors", unit="calls/s")
def actor_many_to_many(api: ModuleType) -> Iterator[Step]:
    servers = [_server_class(api).remote() for _ in range(SERVERS)]
    clients = [_client_class(api).remote(servers) for _ in range(CLIENTS)]

    def step() -> float:
        api.get([client.ping_all.remote(BATCH) for client in clients])
        return BATCH * CLIENTS

    yield step


@workload("actor calls, n:n with a ref", group="actors", unit="calls/s")
def actor_many_to_many_with_ref(api: ModuleType) -> Iterator[Step]:
    servers = [_server_class(api).remote() for _ in range(SERVERS)]
    clients = [_client_class(api).remote(servers) for _ in range(CLIENTS)]

    def step() -> float:
        api.get([client.send_all.remote(BATCH) for client in clients])
        return BATCH * CLIENTS

    yield step


@workload("asyncio actor, sync", group="asyncio actors", unit="calls/s", latency=True)
def asyncio_actor_sync(api: ModuleType) -> Iterator[Step]:
    yield _one_by_one(api, _coroutine_server_class(api).remote())


@workload("asyncio actor, async", group="asyncio actors", unit="calls/s")
def asyncio_actor_async(api: ModuleType) -> Iterator[Step]:
    yield _in_batches(api, _coroutine_server_class(api).remote())


@workload("asyncio actor, async with args", group="asyncio actors", unit="calls/s")
def asyncio_actor_with_args(api: ModuleType) -> Iterator[Step]:
    actor = _coroutine_server_class(api).remote()

    def step() -> float:
        api.get([actor.take.remote(i) for i in range(BATCH)])
        return BATCH

    yield step
