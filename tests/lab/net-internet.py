"""What lies between the laboratory's hosts: every client's line, with its delay and its losses, and the name server.

It runs in the namespace that stands for the internet. Commands come as lines of JSON on standard input, each is
answered by one on standard output, and the end of the input is the end of the program, so that it never outlives its
laboratory. The kernel that this is written for has no netem.
"""

import collections
import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import time

MTU = 1500
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
# Taken from one device before the others get their turn.
BATCH = 64
# What a line's buffer holds of its own rate; more is dropped, as it is by a router's.
BUFFER_SECONDS = 0.2


def tun(name):
    """A network device of this namespace whose packets are this file's."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_WITHOUT_HEADER))
    return file


class Way:
    """One direction of a line: packets leave in the order in which they came, each after the same delay."""

    def __init__(self, source, target, line):
        self.source, self.target, self.line = source, target, line
        self.chance = random.Random(f"{line.seed} {source}")
        self.waiting = collections.deque()
        self.free_at = 0.0
        self.taken = self.lost = self.full = 0

    def take(self, now):
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, MTU)
            except BlockingIOError:
                return
            except OSError:
                return  # the device is down
            self.accept(packet, now)

    def accept(self, packet, now):
        self.taken += 1
        if self.line.dead:
            return
        if self.chance.random() < self.line.loss:
            self.lost += 1
            return
        begins = max(now, self.free_at)
        if begins - now > BUFFER_SECONDS:
            self.full += 1
            return
        self.free_at = begins + len(packet) * 8 / self.line.rate
        self.waiting.append((self.free_at + self.line.delay, packet))

    def deliver(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            _, packet = self.waiting.popleft()
            try:
                os.write(self.target, packet)
            except OSError:
                pass  # the device is down, or its queue is full: the packet is lost

    def counts(self):
        return {"taken": self.taken, "lost": self.lost, "full": self.full}


class Line:
    """A client's line: a device that stays here, and one that goes to the client."""

    def __init__(self, near, far, delay, loss, rate, seed):
        self.delay, self.loss, self.rate, self.seed, self.dead = delay / 1000, loss, rate, seed, False
        here, there = tun(near), tun(far)
        self.down, self.up = Way(here, there, self), Way(there, here, self)

    def cut(self):
        self.dead = True
        self.down.waiting.clear()
        self.up.waiting.clear()

    def mend(self):
        self.dead = False

    def counts(self):
        return {"up": self.up.counts(), "down": self.down.counts()}


class Names:
    """A name server for one name, which is the same with a final dot; there is no other."""

    def __init__(self, addresses, name, ip4, ip6):
        self.name = name.rstrip(".").lower()
        self.records = {1: socket.inet_pton(socket.AF_INET, ip4), 28: socket.inet_pton(socket.AF_INET6, ip6)}
        self.sockets = {}
        for address in addresses:
            asked = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            asked.setblocking(False)
            asked.bind((address, 53))
            self.sockets[asked.fileno()] = asked

    def take(self, file):
        for _ in range(BATCH):
            try:
                question, source = self.sockets[file].recvfrom(MTU)
            except BlockingIOError:
                return
            except OSError:
                continue  # somebody who had asked is gone
            try:
                answer = self.answer(question)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue
            self.sockets[file].sendto(answer, source)

    def answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii").lower())
            at += 1 + question[at]
        kind, _ = struct.unpack_from("!HH", question, at + 1)
        asked = question[12 : at + 5]
        known = ".".join(labels) == self.name
        data = self.records.get(kind) if known else None
        recursion = question[2] & 1
        # An answer with authority; 3 says that there is no such name.
        flags = 0x8480 | recursion << 8 | (0 if known else 3)
        head = question[:2] + struct.pack("!HHHHH", flags, 1, 1 if data else 0, 0, 0)
        if not data:
            return head + asked
        return head + asked + struct.pack("!HHHIH", 0xC00C, kind, 1, 300, len(data)) + data


class Internet:
    def __init__(self, names):
        self.names = names
        self.lines = {}
        self.ways = {}

    def obey(self, command):
        action, name = command["do"], command["line"]
        if action == "line":
            line = self.lines[name] = Line(*(command[key] for key in ("near", "far", "delay", "loss", "rate", "seed")))
            self.ways.update({way.source: way for way in (line.up, line.down)})
            return {}
        if action == "counts":
            return self.lines[name].counts()
        {"cut": Line.cut, "mend": Line.mend}[action](self.lines[name])
        return {}

    def run(self):
        commands = bytearray()
        while True:
            due = min((way.waiting[0][0] for way in self.ways.values() if way.waiting), default=None)
            timeout = None if due is None else max(0.0, due - time.monotonic())
            ready, _, _ = select.select([0, *self.names.sockets, *self.ways], [], [], timeout)
            now = time.monotonic()
            for file in ready:
                if file in self.ways:
                    self.ways[file].take(now)
                elif file in self.names.sockets:
                    self.names.take(file)
                else:
                    read = os.read(0, 65536)
                    if not read:
                        return
                    commands += read
            for way in self.ways.values():
                way.deliver(now)
            while b"\n" in commands:
                command, _, commands = commands.partition(b"\n")
                print(json.dumps(self.obey(json.loads(command))), flush=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    internet = Internet(Names(settings["listen"], settings["name"], settings["ip4"], settings["ip6"]))
    print(json.dumps({}), flush=True)
    internet.run()
