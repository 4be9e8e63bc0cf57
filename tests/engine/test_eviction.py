"""Which objects leave memory, fed by hand and at random: what nobody reads, what was used least recently, no more."""

import random

import pytest

from rlflow.engine.messages import Shm
from rlflow.engine.node.eviction import HIGH, LARGEST_STEP, LOW, Eviction, Orders
from rlflow.engine.store.segment import HEADER

CAPACITY = 1_024_000
SIZE = CAPACITY // 20
PROCESSES = ["driver", "w1"]


def block(number: int, size: int = SIZE, segment: str = "w1-0") -> Shm:
    return Shm(segment, number * SIZE, [size - HEADER], [], number + 1)


def name(number: int) -> bytes:
    return b"%d" % number


def filled(count: int, size: int = SIZE) -> Eviction:
    eviction = Eviction(CAPACITY)
    for i in range(count):
        eviction.appeared(name(i), block(i, size))
    return eviction


def asked(orders: Orders) -> list[bytes]:
    assert orders.move is None
    return [] if orders.ask is None else orders.ask.ids


def moved(eviction: Eviction, orders: Orders) -> list[bytes]:
    """All objects of an order to move have been copied."""
    assert orders.move is not None and orders.ask is None
    accepted, unseal = eviction.moved(orders.move.round, [oid for oid, _ in orders.move.objects])
    assert not unseal
    return accepted


def everybody_answers(eviction: Eviction, orders: Orders, reads: tuple[bytes, ...] = ()) -> Orders:
    assert orders.ask is not None
    for process in orders.ask.processes:
        eviction.answered(process, orders.ask.round, reads)
    return eviction.step(PROCESSES)


def test_nothing_happens_while_there_is_room():
    eviction = filled(int(20 * HIGH))
    assert eviction.step(PROCESSES) == Orders()


def test_before_memory_is_full_the_least_recently_used_go_until_there_is_some_room():
    eviction = filled(17)
    eviction.used(name(1))
    orders = eviction.step(PROCESSES)
    assert asked(orders) == [name(0), name(2), name(3)]
    assert orders.seal == [block(0), block(2), block(3)]
    assert eviction.step(PROCESSES) == Orders(), "it waits for the answers"
    orders = everybody_answers(eviction, orders)
    assert orders.move is not None and orders.move.mover == "w1", "who made the last one"
    assert eviction.step(PROCESSES) == Orders(), "it waits for the copies"
    assert moved(eviction, orders) == [name(0), name(2), name(3)]
    assert eviction.in_use <= CAPACITY * LOW
    assert eviction.step(PROCESSES) == Orders()


def test_much_goes_in_steps():
    capacity = 20 * LARGEST_STEP
    eviction = Eviction(capacity)
    for i in range(20):
        eviction.appeared(name(i), block(i, LARGEST_STEP))
    for i in range(6):
        orders = eviction.step(PROCESSES)
        assert asked(orders) == [name(i)]
        assert moved(eviction, everybody_answers(eviction, orders)) == [name(i)]
    assert eviction.step(PROCESSES) == Orders()


def test_what_somebody_reads_stays_and_others_go_in_its_place():
    eviction = filled(17)
    orders = eviction.step(PROCESSES)
    assert orders.ask is not None
    number = orders.ask.round
    assert eviction.answered("w1", number, [name(1), name(2)]) == [block(1), block(2)]
    assert eviction.answered("driver", number, [name(2)]) == []
    orders = eviction.step(PROCESSES)
    assert asked(orders) == [name(3), name(4)] and orders.seal == [block(3), block(4)]
    assert moved(eviction, everybody_answers(eviction, orders)) == [name(0), name(3), name(4)]


def test_when_all_is_read_nothing_goes_and_it_is_not_tried_again_at_once():
    eviction = filled(17)
    orders = eviction.step(PROCESSES)
    while orders.ask is not None:
        orders = everybody_answers(eviction, orders, tuple(orders.ask.ids))
    assert orders == Orders()
    assert eviction.step(PROCESSES) == Orders()
    eviction.appeared(b"small", block(99, 1000))
    assert eviction.step(PROCESSES) == Orders()
    eviction.appeared(b"large", block(98, 2 * SIZE, "w1-d0"))  # which found no room in memory
    assert asked(eviction.step(PROCESSES))


def test_who_comes_for_a_sealed_object_has_it_back():
    eviction = filled(17)
    orders = eviction.step(PROCESSES)
    assert eviction.wanted(name(0)) == block(0)
    assert eviction.wanted(name(0)) is None
    orders = everybody_answers(eviction, orders)
    assert asked(orders) == [name(3)], "and another one goes"
    orders = everybody_answers(eviction, orders)
    assert orders.move is not None
    assert eviction.wanted(name(1)) == block(1), "even while it is copied"
    accepted, unseal = eviction.moved(orders.move.round, [oid for oid, _ in orders.move.objects])
    assert accepted == [name(2), name(3)] and unseal == []


def test_what_is_freed_meanwhile_is_forgotten():
    eviction = filled(17)
    orders = eviction.step(PROCESSES)
    eviction.gone(name(0))
    orders = everybody_answers(eviction, orders)
    orders = everybody_answers(eviction, orders)
    assert orders.move is not None
    eviction.gone(name(1))
    assert eviction.moved(orders.move.round, [name(1), name(2), name(3)]) == ([name(2), name(3)], [])


def test_a_process_that_dies_reads_nothing_and_copies_nothing():
    eviction = filled(17)
    orders = eviction.step([*PROCESSES, "w2"])
    assert orders.ask is not None
    for process in PROCESSES:
        eviction.answered(process, orders.ask.round, [])
    assert eviction.step([*PROCESSES, "w2"]) == Orders()
    assert eviction.ended("w2") == []
    orders = eviction.step(PROCESSES)
    assert orders.move is not None
    assert eviction.ended("w1") == [block(0), block(1), block(2)]
    assert eviction.moved(orders.move.round, [name(0)]) == ([], []), "its last words come late"
    assert eviction.step(["driver"]) == Orders()
    eviction.appeared(b"next", block(50, SIZE, "driver-0"))
    assert asked(eviction.step(["driver"])), "others go on"


def test_answers_of_an_earlier_round_count_for_nothing():
    eviction = filled(17)
    orders = eviction.step(PROCESSES)
    assert orders.ask is not None
    assert eviction.answered("driver", orders.ask.round - 1, [name(0)]) == []
    assert eviction.moved(orders.ask.round, [name(0)]) == ([], []), "nothing has been asked to move"
    assert eviction.step(PROCESSES) == Orders()


def test_who_lacks_room_copies_what_makes_room_for_it():
    eviction = filled(16)
    eviction.lacks_room("driver", 6 * SIZE)
    orders = everybody_answers(eviction, eviction.step(PROCESSES))
    assert orders.move is not None and orders.move.mover == "driver"
    assert len(moved(eviction, orders)) == 3, "and a little more"


def test_who_lacks_room_that_others_only_have_to_give_back_copies_nothing():
    eviction = filled(10)
    eviction.lacks_room("driver", 6 * SIZE)
    assert eviction.step(PROCESSES) == Orders()


def test_when_the_disk_is_full_all_stays():
    eviction = filled(17)
    orders = everybody_answers(eviction, eviction.step(PROCESSES))
    assert orders.move is not None
    assert eviction.moved(orders.move.round, [name(0)]) == ([name(0)], [block(1), block(2)])
    assert eviction.step(PROCESSES) == Orders()


def test_what_lies_on_disk_is_no_candidate():
    eviction = Eviction(CAPACITY)
    for i in range(40):
        eviction.appeared(name(i), block(i, SIZE, "driver-d0"))
    assert eviction.in_use == 0
    assert eviction.step(PROCESSES) == Orders()


class Machine:
    """Processes that put, read, drop, die and are slow to answer, and the headers of blocks in memory."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.eviction = Eviction(CAPACITY)
        self.readable: dict[bytes, bool] = {}
        """Objects in memory: whether their block has its generation."""
        self.on_disk: set[bytes] = set()
        self.pins: dict[str, list[bytes]] = {"driver": [], "w1": [], "w2": []}
        self.mail: list[tuple[str, Orders]] = []
        self.made = 0

    def name_of(self, value: Shm) -> bytes:
        return name(value.generation - 1)

    def unseal(self, values: list[Shm]) -> None:
        for value in values:
            assert self.name_of(value) in self.readable
            self.readable[self.name_of(value)] = True

    def put(self) -> None:
        process = self.random.choice(list(self.pins))
        size = self.random.choice([SIZE, SIZE // 3, 4 * SIZE])
        self.eviction.appeared(name(self.made), block(self.made, size, f"{process}-0"))
        self.readable[name(self.made)] = True
        self.made += 1

    def read(self) -> None:
        process = self.random.choice(list(self.pins))
        if self.readable:
            oid = self.random.choice(list(self.readable))
            if not self.readable[oid]:
                sealed = self.eviction.wanted(oid)
                assert sealed is not None, "a block that nobody will ever unseal"
                self.unseal([sealed])
            self.pins[process].append(oid)

    def drop(self) -> None:
        process = self.random.choice(list(self.pins))
        if self.pins[process]:
            self.pins[process].pop(self.random.randrange(len(self.pins[process])))

    def free(self) -> None:
        pinned = {oid for pins in self.pins.values() for oid in pins}
        free = [oid for oid in self.readable if oid not in pinned]
        if free:
            oid = self.random.choice(free)
            self.eviction.gone(oid)
            del self.readable[oid]

    def lack(self) -> None:
        self.eviction.lacks_room(self.random.choice(list(self.pins)), self.random.choice([SIZE, 5 * SIZE]))

    def die(self) -> None:
        if len(self.pins) > 1 and self.random.random() < 0.1:
            process = self.random.choice([process for process in self.pins if process != "driver"])
            del self.pins[process]
            self.mail = [(receiver, orders) for receiver, orders in self.mail if receiver != process]
            self.unseal(self.eviction.ended(process))

    def answer(self) -> None:
        if not self.mail:
            return
        process, orders = self.mail.pop(self.random.randrange(len(self.mail)))
        if orders.ask is not None:
            reads = [oid for oid in orders.ask.ids if oid in self.pins[process]]
            self.unseal(self.eviction.answered(process, orders.ask.round, reads))
        elif orders.move is not None:
            objects = [oid for oid, _ in orders.move.objects]
            copied = objects[: self.random.choice([len(objects), len(objects), len(objects) // 2])]
            accepted, unseal = self.eviction.moved(orders.move.round, copied)
            self.unseal(unseal)
            for oid in accepted:
                assert not any(oid in pins for pins in self.pins.values()), "somebody reads the block"
                assert not self.readable.pop(oid), "somebody could have come in"
                self.on_disk.add(oid)

    def step(self) -> None:
        orders = self.eviction.step(self.pins)
        for value in orders.seal:
            self.readable[self.name_of(value)] = False
        if orders.ask is not None:
            self.mail += [(process, orders) for process in orders.ask.processes]
        if orders.move is not None:
            self.mail.append((orders.move.mover, orders))


@pytest.mark.parametrize("seed", range(30))
def test_nobody_loses_what_it_reads_and_no_block_stays_sealed(seed):
    machine = Machine(seed)
    actions = [machine.put] * 3 + [machine.read, machine.drop, machine.free, machine.lack, machine.die]
    actions += [machine.answer] * 4
    for _ in range(600):
        machine.random.choice(actions)()
        machine.step()
    for pins in machine.pins.values():
        pins.clear()
    while machine.mail:
        machine.answer()
        machine.step()
    assert all(machine.readable.values())
    assert machine.on_disk
    assert len(machine.readable) == len(machine.eviction._memory)
