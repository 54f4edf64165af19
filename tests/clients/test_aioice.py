"""ICE by aioice, relay only: two connections that can meet nowhere but at this server."""

import asyncio
import os
import re
import ssl
import subprocess
import tempfile
import unittest
import urllib.request

import aioice

PATIENCE = 30

CONFIG = """
[http]
listen = ["127.0.0.1:0"]
plain_listen = ["127.0.0.1:0"]
[metrics]
listen = ["127.0.0.1:0"]
[turn]
listen_udp = ["127.0.0.1:0"]
listen_tcp = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
relay_ports = "20000-29999"
users = { alice = "wonderland", bob = "builder" }
"""


class Server:
    """The real binary on free ports, stopped at the end."""

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory()
        path = os.path.join(self.home.name, "throughway.toml")
        with open(path, "w") as file:
            file.write(CONFIG)
        with open(os.path.join(self.home.name, "log"), "w") as log:
            command = [os.environ["THROUGHWAY_BIN"], "--config", path]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.banner = ""
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("Ready"):
                return self
        raise AssertionError("it did not start: " + self.banner)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.home.cleanup()

    def tls(self):
        """TLS that trusts its self-signed certificate and no other."""
        return ssl.create_default_context(cafile=os.path.join(self.home.name, "certs", "self-signed.pem"))

    def listener(self, transport, serves):
        host, port = re.search(rf"^ *{transport} +(\S+):(\d+) +{serves}", self.banner, re.MULTILINE).groups()
        return host, int(port)

    def metric(self, name):
        host, port = self.listener("tcp", "metrics")
        with urllib.request.urlopen(f"http://{host}:{port}/metrics") as answer:
            # All that bear the name, whatever their labels.
            found = re.findall(rf"^{name}(?:{{.*}})? (\d+)$", answer.read().decode(), re.MULTILINE)
        assert found, name
        return sum(map(int, found))

    def relayed(self, direction):
        return self.metric(rf'throughway_relayed_packets_total{{transport="\w+",direction="{direction}"}}')


def connection(server, controlling, user, password, transport="udp"):
    listeners = {"udp": ("udp", "stun"), "tcp": ("tcp", "turn,"), "tls": ("tcp", "turns$")}
    return aioice.Connection(
        ice_controlling=controlling,
        turn_server=server.listener(*listeners[transport]),
        turn_username=user,
        turn_password=password,
        turn_transport="udp" if transport == "udp" else "tcp",
        turn_ssl=server.tls() if transport == "tls" else False,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(a, b):
    """Carries over what signaling would."""
    for one in (a, b):
        await one.gather_candidates()
    for one, other in ((a, b), (b, a)):
        one.remote_username, one.remote_password = other.local_username, other.local_password
        for candidate in other.local_candidates:
            await one.add_remote_candidate(candidate)
        await one.add_remote_candidate(None)


class RelayOnly(unittest.IsolatedAsyncioTestCase):
    async def test_two_connections_exchange_data_both_ways_over_relayed_candidates_only(self):
        for transports in (("udp", "udp"), ("tcp", "tcp"), ("tls", "tls"), ("udp", "tls")):
            with self.subTest(transports):
                await self.exchange(*transports)

    async def exchange(self, of_a, of_b):
        with Server() as server:
            a = connection(server, True, "alice", "wonderland", of_a)
            b = connection(server, False, "bob", "builder", of_b)
            async with asyncio.timeout(PATIENCE):
                await introduce(a, b)
                self.assertEqual({c.type for c in a.local_candidates + b.local_candidates}, {"relay"})
                self.assertEqual(server.metric("throughway_allocations"), 2)

                await asyncio.gather(a.connect(), b.connect())
                for n in range(100):
                    await a.send(b"ping %d" % n)
                    self.assertEqual(await b.recv(), b"ping %d" % n)
                    await b.send(b"pong %d" % n)
                    self.assertEqual(await a.recv(), b"pong %d" % n)

                self.assertGreaterEqual(server.relayed("hairpin"), 200)
                self.assertEqual(server.relayed("to-peers"), 0)
                await asyncio.gather(a.close(), b.close())
                while server.metric("throughway_allocations") > 0:
                    await asyncio.sleep(0.01)

    async def test_a_wrong_password_gathers_nothing(self):
        with Server() as server:
            stranger = connection(server, True, "alice", "wrong")
            async with asyncio.timeout(PATIENCE):
                await stranger.gather_candidates()
                self.assertEqual(stranger.local_candidates, [])
                self.assertEqual(server.metric("throughway_allocations"), 0)
                await stranger.close()


if __name__ == "__main__":
    unittest.main()
