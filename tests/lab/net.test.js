// The laboratory's networks are what they are called, measured from inside by plain sockets.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { KINDS } from "./net-home.js";
import { Lab } from "./net.js";
import { Socket, answers } from "./net-socket.js";
import { missing, run } from "./net-system.js";

const DELAY = 30;
const FULL = process.env.THROUGHWAY_LAB_FULL === "1";
const skip = await missing();
const NAMES = Object.keys(KINDS);
const WITH_UDP = NAMES.filter((kind) => KINDS[kind].expected.udp);
const WITHOUT_UDP = NAMES.filter((kind) => !KINDS[kind].expected.udp);

describe("the laboratory", { skip }, () => {
  /** @type {Lab} */
  let lab;
  before(async () => (lab = await Lab.open({ delay: DELAY })));
  after(() => lab?.close());

  /** A socket that ends with its test. */
  async function socket(t, place, options) {
    const opened = await Socket.open(place, options);
    t.after(() => opened.close());
    return opened;
  }

  const serverAddress = (host) => (host.expected.v4 ? lab.server.ip4 : lab.server.ip6);
  const at = (host, port = lab.server.stun) => ({ address: serverAddress(host), port });
  const own = (host) => (host.expected.v4 ? host.public.ip4 : ip6Hex(`${host.public.prefix}::2`));
  const family = (host) => ({ ip6: !host.expected.v4 });

  describe("each kind", { concurrency: 4 }, () => {
    for (const kind of NAMES) {
      test(`a host of ${kind} has the addresses that it should have, and the router's outside`, async () => {
        const host = await lab.host(kind, "a");

        const devices = JSON.parse(await run(host.wrap(["ip", "-j", "address", "show", "scope", "global"])));

        const found = devices.flatMap(({ addr_info }) => addr_info).filter(({ local }) => local);
        const { v4, v6, nat } = host.expected;
        assert.equal(found.some(({ family }) => family === "inet"), v4);
        assert.equal(found.some(({ family }) => family === "inet6"), v6);
        if (v4 && nat !== "none") assert.deepEqual(found.map(({ local }) => local), [host.local]);
      });

      test(`TCP of ${kind} reaches ${kind === "only-443" ? "port 443 and no other" : "every port"}`, async () => {
        const host = await lab.host(kind, "a");
        const connects = (port) => connected(host, serverAddress(host), port);

        const [web, relay] = await Promise.all([connects(lab.server.https), connects(lab.server.stun)]);

        assert.equal(web, true);
        assert.equal(relay, kind !== "only-443");
      });
    }

    for (const kind of WITH_UDP) {
      test(`${kind} maps UDP as it should: ${KINDS[kind].expected.nat}`, async (t) => {
        const host = await lab.host(kind, "a");
        const client = await socket(t, host, family(host));
        const destinations = [at(host), at(host, lab.server.https)];
        if (host.expected.v4) destinations.push({ address: lab.server.otherIp4, port: lab.server.stun });

        const mapped = [];
        for (const destination of destinations) mapped.push(await client.mapped(destination));

        assert.deepEqual(new Set(mapped.map(({ address }) => address)), new Set([own(host)]));
        const ports = new Set(mapped.map(({ port }) => port));
        if (host.expected.nat === "symmetric") {
          assert.equal(ports.size, destinations.length);
          assert.ok(!ports.has(client.port));
        } else {
          assert.deepEqual(ports, new Set([client.port]));
        }
      });

      const inward = ["open", "full-cone"].includes(kind);
      test(`${kind} lets ${inward ? "anybody" : "nobody but those it has sent to"} in`, async (t) => {
        const host = await lab.host(kind, "a");
        const client = await socket(t, host, family(host));
        const stranger = await socket(t, lab.server, family(host));
        const outside = { ...(await client.mapped(at(host))) };
        if (!host.expected.v4) outside.address = `${host.public.prefix}::2`;

        await stranger.send(outside, "unasked", "unasked", "unasked");
        // The line keeps the order: what comes to be let in is there before the answer to a later question.
        await client.mapped(at(host));

        const unasked = client.arrived.filter(({ data }) => data.toString() === "unasked");
        assert.equal(unasked.length > 0, inward);
        for (const { address, port } of unasked) assert.deepEqual([address, port], [lab.server.ip4, stranger.port]);
        const strangers = { address: serverAddress(host), port: stranger.port };
        const heard = await until(stranger, "hello", () => client.send(strangers, "hello"));
        const back = await until(client, "welcome", () => stranger.send(heard, "welcome"));
        assert.equal(back.port, stranger.port);
      });

      test(`packets of ${kind} pass ${KINDS[kind].routers.length} routers before the internet`, async (t) => {
        const host = await lab.host(kind, "a");
        const client = await socket(t, host, family(host));
        const hops = KINDS[kind].routers.length + 1;

        const short = await client.ask({ ...at(host), ttl: hops });
        await client.mapped({ ...at(host), ttl: hops + 1 });

        assert.ok(!client.arrived.some(({ data }) => answers(data, short)));
      });
    }

    for (const kind of WITHOUT_UDP) {
      test(`${kind} lets no UDP out but questions for names`, async (t) => {
        const host = await lab.host(kind, "a");
        const client = await socket(t, host);
        const watcher = await socket(t, lab.server, { echo: true });
        const places = [at(host), at(host, lab.server.https), { ...at(host), port: watcher.port }];

        for (const place of places) await client.ask(place);
        // What is let out is answered in the order in which it left.
        for (let time = 0; time < 3; time += 1) await resolved(client, "relay.lab.test", 1);

        assert.deepEqual(client.arrived.filter(({ port }) => port !== 53), []);
        assert.deepEqual(watcher.arrived, []);
      });
    }

  });

  test("the name server knows the server, with and without a final dot, and nobody else", async (t) => {
    const client = await socket(t, await lab.host("open", "a"));

    const four = await resolved(client, "relay.lab.test", 1);
    const six = await resolved(client, "RELAY.lab.test", 28);
    const other = await resolved(client, "www.example.org", 1);
    const service = await resolved(client, "relay.lab.test", 65);

    assert.deepEqual(four, { status: 0, data: [...lab.server.ip4.split(".").map(Number)] });
    assert.equal(Buffer.from(six.data).toString("hex"), ip6Hex(lab.server.ip6));
    assert.deepEqual(other, { status: 3, data: [] });
    assert.deepEqual(service, { status: 0, data: [] });
    for (const name of ["relay.lab.test", "relay.lab.test."]) {
      const found = await run((await lab.host("symmetric", "a")).wrap(["getent", "ahostsv4", name]));
      assert.match(found, /^203\.0\.113\.10 /);
    }
  });

  test("two hosts in one home reach each other by the addresses they have outside, and by no other", async (t) => {
    const hosts = await lab.pair("hairpin");
    const [left, right] = await Promise.all(hosts.map((host) => socket(t, host)));
    const [leftOutside, rightOutside] = [await left.mapped(at(hosts[0])), await right.mapped(at(hosts[1]))];

    await left.send({ address: hosts[1].local, port: right.port }, "over the fence");
    const heard = await until(right, "around the block", () => left.send(rightOutside, "around the block"));
    await right.send(heard, "and back");
    const back = await left.next(({ data }) => data.toString() === "and back");

    assert.deepEqual([leftOutside.address, rightOutside.address], [hosts[0].public.ip4, hosts[0].public.ip4]);
    assert.deepEqual([heard.address, heard.port], [leftOutside.address, leftOutside.port]);
    assert.deepEqual([back.address, back.port], [rightOutside.address, rightOutside.port]);
    assert.ok(!right.arrived.some(({ data }) => data.toString() === "over the fence"));
  });

  test("both homes have the same addresses, and different ones outside", async (t) => {
    const hosts = await Promise.all(["a", "b"].map((side) => lab.host("symmetric", side)));

    const outside = await Promise.all(hosts.map(async (host) => (await socket(t, host)).mapped(at(host))));

    assert.equal(hosts[0].local, hosts[1].local);
    assert.match(outside[0].address, /^203\.0\.113\./);
    assert.match(outside[1].address, /^198\.51\.100\./);
  });

  for (const [left, right, meet] of [
    ["port-restricted", "port-restricted", true],
    ["double-nat", "forgetful", true],
    ["symmetric", "full-cone", true],
    ["symmetric", "port-restricted", false],
    ["symmetric", "symmetric", false],
  ]) {
    const outcome = meet ? "meet" : "miss each other";
    test(`${left} and ${right}, each sending to where the other was seen, ${outcome}`, async (t) => {
      const hosts = [await lab.host(left, "a"), await lab.host(right, "b")];
      const ends = await Promise.all(hosts.map((host) => socket(t, host)));
      const outside = await Promise.all(ends.map((end, index) => end.mapped(at(hosts[index]))));

      // The first one's early packets must not spoil what the second one's router does for it.
      for (let round = 0; round < 3; round += 1) {
        for (const index of [0, 1]) {
          await ends[index].send(outside[1 - index], "check");
          await ends[1 - index].mapped(at(hosts[1 - index]));
          for (const { address, port, data } of ends[1 - index].arrived) {
            if (data.toString() === "check") await ends[1 - index].send({ address, port }, "answer");
          }
          await ends[index].mapped(at(hosts[index]));
        }
      }

      // Two ways are one there and back; the other end's checks may go to a mapping that is not the one for it.
      const answered = ends.some(({ arrived }) => arrived.some(({ data }) => data.toString() === "answer"));
      assert.equal(answered, meet);
    });
  }

  test("a line's delay is twice in a round trip", async (t) => {
    for (const [kind, delay] of [["open", DELAY], ["double-nat", DELAY], ["lossy", 80]]) {
      const host = await lab.host(kind, "b");
      const client = await socket(t, host);
      const trips = [];
      await client.mapped(at(host));
      while (trips.length < 15) {
        const began = performance.now();
        const transaction = await client.ask(at(host));
        const answer = await client.next(({ data }) => answers(data, transaction), 400);
        if (answer) trips.push(performance.now() - began);
      }

      trips.sort((one, other) => one - other);
      t.diagnostic(`${kind}: ${trips[0].toFixed(1)} ms at best, ${trips[7].toFixed(1)} ms in the middle`);
      assert.ok(trips[0] >= 2 * delay, `${trips[0]} ms is less than the line's delay`);
      // A busy machine is late, but not each time by as much again.
      assert.ok(trips[0] < 4 * delay, `${trips[0]} ms is twice the line's delay`);
    }
  });

  test("a line carries what it is given in its order and loses nothing", async (t) => {
    const host = await lab.host("open", "b");
    const { there, back } = await carried(t, host, 2_000);

    assert.deepEqual(there, numbers(2_000));
    assert.deepEqual(back, numbers(2_000));
  });

  test("the lossy line loses one packet in twenty, each way", async (t) => {
    const host = await lab.host("lossy", "b");
    const { there, back } = await carried(t, host, 3_000);

    // Six standard deviations: the draws are the same in each run, but not what they fall on.
    const lost = 3_000 - there.length;
    const lostBack = there.length - back.length;
    t.diagnostic(`${lost} of 3000 lost on the way there, ${lostBack} of ${there.length} on the way back`);
    assert.ok(Math.abs(lost - 150) < 72, `${lost} of 3000`);
    assert.ok(Math.abs(lostBack - there.length / 20) < 72, `${lostBack} of ${there.length}`);
    assert.deepEqual(there, [...there].sort((one, other) => one - other));
  });

  test("a line that is cut carries nothing, and everything again once it is mended", async (t) => {
    const host = await lab.host("full-cone", "b");
    const client = await socket(t, host);
    const echo = await socket(t, lab.server, { echo: true });
    const there = { address: lab.server.ip4, port: echo.port };
    await until(client, "before", () => client.send(there, "before"));

    await host.cut();
    const before = await host.counts();
    await client.send(there, "meanwhile");
    while ((await host.counts()).up.taken === before.up.taken) await pause(5);
    await host.mend();
    await until(client, "after", () => client.send(there, "after"));

    assert.ok(!echo.arrived.some(({ data }) => data.toString() === "meanwhile"));
  });

  for (const kind of NAMES) {
    test(`a host of ${kind} that changes its network has other addresses, inside and out`, async (t) => {
      const host = await lab.host(kind, "b");
      const client = await socket(t, host, family(host));
      const before = { own: own(host), local: host.local };
      const { udp, tcp443 } = host.expected;
      const old = udp ? await client.mapped(at(host)) : undefined;

      await host.changeAddress();

      assert.notEqual(own(host), before.own);
      assert.notEqual(host.local, before.local);
      if (udp) assert.equal((await client.mapped(at(host))).address, own(host));
      if (udp) assert.notEqual(old.address, own(host));
      assert.equal(await connected(host, serverAddress(host), lab.server.https), tcp443);
    });
  }

  // It takes half a minute of waiting.
  if (FULL) {
    test("a mapping that is not used is forgotten by the forgetful one after 30 s and not before", async (t) => {
      const ends = await Promise.all(["forgetful", "port-restricted"].map(async (kind) => {
        const host = await lab.host(kind, "a");
        const client = await socket(t, host);
        const [early, late] = [await socket(t, lab.server), await socket(t, lab.server)];
        const meet = async (far) => {
          const there = { address: lab.server.ip4, port: far.port };
          const heard = await until(far, "hello", () => client.send(there, "hello"));
          await until(client, "welcome", () => far.send(heard, "welcome"));
          return heard;
        };
        // Linux keeps a mapping longer once it has been in use for two seconds.
        await Promise.all([meet(early), meet(late)]);
        await pause(3_000);
        const [, outside] = await Promise.all([meet(early), meet(late)]);
        return { host, client, early, late, outside };
      }));
      const knock = async ({ host, client, outside }, far, text) => {
        await far.send(outside, text);
        await client.mapped(at(host));
        return client.arrived.some(({ data }) => data.toString() === text);
      };

      await pause(20_000);
      const kept = await Promise.all(ends.map((end) => knock(end, end.early, "early")));
      await pause(13_000);
      const left = await Promise.all(ends.map((end) => knock(end, end.late, "late")));

      assert.deepEqual(kept, [true, true]);
      assert.deepEqual(left, [false, true]);
    });
  }

  /** Sends so many numbered packets to an echo, and returns which arrived there and back, in the order of arrival. */
  async function carried(t, host, count) {
    const client = await socket(t, host);
    const echo = await socket(t, lab.server, { echo: true });
    const there = { address: lab.server.ip4, port: echo.port };
    // No more at once than a socket's buffer holds.
    const BATCH = 100;
    for (let first = 0; first < count; first += BATCH) {
      await client.send(there, ...numbers(Math.min(BATCH, count - first)).map((index) => `number ${first + index}`));
      const mark = `mark ${first}`;
      await until(client, mark, () => client.send(there, mark));
    }
    const numbered = ({ data }) => /^number (\d+)$/.exec(data.toString())?.slice(1).map(Number) ?? [];
    return { there: echo.arrived.flatMap(numbered), back: client.arrived.flatMap(numbered) };
  }
});

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

/** Does it again and again until the socket has got this text, which is then taken out. */
async function until(socket, text, again) {
  for (let time = 0; time < 60; time += 1) {
    await again();
    const found = await socket.next(({ data }) => data.toString() === text, 500);
    if (found) return found;
  }
  throw new Error(`"${text}" does not arrive`);
}

/** Whether a TCP connection comes about within two seconds. */
function connected(host, address, port) {
  const connect = host.wrap(["timeout", "2", "bash", "-c", `exec 3<>/dev/tcp/${address}/${port}`]);
  return run(connect).then(() => true, () => false);
}

/** Asks the name server for a name's record of a type: its status, and the data of the first answer. */
async function resolved(client, name, type) {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label)]);
  const id = 1 + Math.floor(Math.random() * 65_535);
  const question = Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, type, 0, 1]);
  let answer;
  while (!answer) {
    await client.send({ address: "203.0.113.53", port: 53 }, question);
    answer = await client.next(({ port, data }) => port === 53 && data.readUInt16BE(0) === id, 500);
  }
  return { status: answer.data[3] & 15, data: [...answer.data.subarray(question.length + 12)] };
}

/** An IPv6 address with one `::` as its 16 bytes. */
function ip6Hex(address) {
  const hex = (part) => part.split(":").filter(Boolean).map((group) => group.padStart(4, "0")).join("");
  const [head, tail] = address.split("::").map(hex);
  return head + "0".repeat(32 - head.length - tail.length) + tail;
}
