// What deploy/ offers to copy: the units as systemd judges them, the firewall in a kernel, the settings, the image.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { Run, run } from "../lab/net-system.js";
import { debian } from "./machine.js";

const DEPLOY = path.resolve(import.meta.dirname, "../../deploy");
const START_MS = 30_000;
const binary = process.env.THROUGHWAY_BIN;

let laboratory;
let directory;

before(async () => {
  if (!binary) throw new Error("THROUGHWAY_BIN must name the program; tests/run package sets it");
  laboratory = await Run.begin();
  directory = await mkdtemp(path.join(tmpdir(), "throughway-samples-"));
});

after(async () => {
  await laboratory?.end();
  if (directory) await rm(directory, { recursive: true, force: true });
});

test("systemd counts the exposure of the unit below 2.0", async () => {
  const unit = path.join(DEPLOY, "throughway.service");

  await assert.doesNotReject(run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]));
});

test("systemd finds nothing to complain about in the units", async () => {
  // It wants the programs to be there, and takes warnings for success.
  const service = (await text("throughway.service")).replaceAll("/usr/bin/throughway", binary)
    .replace(/^Documentation=.*\n/m, "");
  await writeFile(path.join(directory, "throughway.service"), service);
  await copyFile(path.join(DEPLOY, "throughway.socket"), path.join(directory, "throughway.socket"));
  const units = ["throughway.service", "throughway.socket"].map((unit) => path.join(directory, unit));

  const said = await run(["sh", "-c", 'systemd-analyze verify --recursive-errors=no "$@" 2>&1', "sh", ...units]);

  assert.equal(said, "");
});

test("the firewall lets in what is served, drops the rest, and tracks no media", async () => {
  const inside = await laboratory.namespace("guarded");
  const outside = await laboratory.namespace("outside");
  await inside.cable("eth0", outside, "eth0");
  await inside.ip("addr add 192.0.2.1/24 dev eth0");
  await outside.ip("addr add 192.0.2.2/24 dev eth0");

  await run(inside.wrap(["nft", "-f", path.join(DEPLOY, "throughway.nft")]));
  // A second time takes the place of the first.
  await run(inside.wrap(["nft", "-f", path.join(DEPLOY, "throughway.nft")]));
  const echo = await listening(inside.wrap(["python3", "-c", ECHO]));
  const answers = JSON.parse(await run(outside.wrap(["python3", "-c", ASK])));
  const rules = await run(inside.wrap(["nft", "list", "table", "inet", "throughway"]));
  echo.kill("SIGKILL");

  assert.deepEqual(answers, {
    "tcp 443": true,
    "tcp 3478": true,
    "tcp 8080": false,
    "udp 3478": true,
    "udp 443": true,
    "udp 49160": true,
    "udp 65535": true,
    "udp 8080": false,
    "udp 49159": false,
  });
  assert.match(rules, /notrack/);
});

test("every setting of the kernel is one that it has", async () => {
  const lines = (await text("90-throughway.conf")).split("\n");
  const keys = lines.map((line) => /^([a-z0-9_.]+) = /.exec(line)?.[1]).filter(Boolean);

  for (const key of keys) await run(["sysctl", "-n", key]);

  assert.ok(keys.length >= 4);
});

test("the bill of materials names what is linked in with its licence, and nothing that only tests need", async () => {
  await run(["python3", path.join(DEPLOY, "sbom.py"), directory]);
  const { components, dependencies } = JSON.parse(await readFile(path.join(directory, "throughway.cdx.json"), "utf8"));
  const licences = await readFile(path.join(directory, "third-party-licences.txt"), "utf8");

  const names = components.map(({ name }) => name);
  for (const name of ["turn", "stun", "rustls", "tokio"]) assert.ok(names.includes(name), name);
  for (const name of ["proptest", "serde_derive", "throughway"]) assert.ok(!names.includes(name), name);
  assert.deepEqual(components.filter(({ licenses, hashes }) => !licenses[0].expression || !hashes), []);
  assert.equal(dependencies.length, components.length + 1);
  assert.match(licences, /==== .*rustls/);
});

// No engine runs here: the second stage's steps are run in a Debian of debootstrap's. What isn't run: the first stage
// (cargo build; its program is the one that is tested everywhere), and the installation by apt-get, whose packages that
// Debian has.
test("the image's steps make a program that a user without rights runs on port 443 and that is healthy", async () => {
  const steps = stage(await text("Dockerfile"));
  const root = path.join(directory, "image");
  await run(["cp", "-a", await debian(), root]);

  for (const { word, rest } of steps) await STEPS[word]?.(root, rest);
  const said = (wanted) => steps.find(({ word }) => word === wanted).rest;
  const [entry, health, user] = ["ENTRYPOINT", "HEALTHCHECK", "USER"].map(said);
  const host = await laboratory.namespace("host");
  const [command, ...rest] = host.wrap(contained(root, user, JSON.parse(entry)));
  await mkdir(path.join(root, "etc/throughway"));
  await writeFile(path.join(root, "etc/throughway/throughway.toml"), IMAGE);
  const server = spawn(command, rest, { stdio: ["ignore", "pipe", "pipe"] });

  try {
    await ready(server);
    await assert.doesNotReject(run(host.wrap(contained(root, user, JSON.parse(health.slice(health.indexOf("[")))))));
  } finally {
    server.kill("SIGKILL");
  }
});

const IMAGE = `[http]
listen = ["[::]:443"]
plain_listen = ["[::]:80"]
[control]
socket = "/run/throughway/control.sock"
`;

/** What is done for each word of a Dockerfile that changes files. */
const STEPS = {
  async RUN(root, rest) {
    const install = /^apt-get update && apt-get install -y --no-install-recommends ([\w\s-]+?) &&/;
    const [, packages] = install.exec(rest) ?? [];
    if (!packages) return run(["chroot", root, "sh", "-euc", rest]);
    return run(["chroot", root, "dpkg-query", "--status", ...packages.split(" ")]);
  },
  async COPY(root, rest) {
    const [, from, to] = /^--from=build (\S+) (\S+)$/.exec(rest);
    assert.match(from, /\/target\/release\/throughway$/);
    await copyFile(binary, path.join(root, to));
  },
};

/** The lines of the last stage. */
function stage(dockerfile) {
  const lines = dockerfile.replaceAll("\\\n", " ").split("\n").filter((line) => /^[A-Z]/.test(line));
  const steps = lines.map((line) => ({ word: line.split(" ", 1)[0], rest: line.slice(line.indexOf(" ") + 1).trim() }));
  return steps.slice(steps.findLastIndex(({ word }) => word === "FROM") + 1);
}

/** The command as an engine runs it with compose.yaml: as that user, with that one capability to be had. */
function contained(root, user, command) {
  return ["setpriv", "--bounding-set=-all,+net_bind_service,+setuid,+setgid,+sys_chroot", "--",
    "chroot", `--userspec=${user}:${user}`, root, "env", "STATE_DIRECTORY=/var/lib/throughway", ...command];
}

async function ready(server) {
  let said = "";
  const deadline = setTimeout(() => server.kill("SIGKILL"), START_MS);
  await new Promise((resolve, reject) => {
    for (const stream of [server.stdout, server.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        said += text;
        if (/^Ready/m.test(said)) resolve();
      });
    }
    server.once("exit", () => reject(new Error(`the server ended before it was ready:\n${said}`)));
  }).finally(() => clearTimeout(deadline));
}

async function listening(argv) {
  const [command, ...rest] = argv;
  const child = spawn(command, rest, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return child;
}

const ECHO = `
import socket, selectors
taken = selectors.DefaultSelector()
for port in (443, 3478, 8080):
    taken.register(socket.create_server(("", port)), selectors.EVENT_READ, "tcp")
for port in (443, 3478, 8080, 49159, 49160, 65535):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", port))
    taken.register(udp, selectors.EVENT_READ, "udp")
print("ready", flush=True)
while True:
    for key, _ in taken.select():
        if key.data == "tcp":
            key.fileobj.accept()[0].close()
        else:
            data, whose = key.fileobj.recvfrom(100)
            key.fileobj.sendto(data, whose)
`;

// What is let in answers at once; a second of silence is a drop.
const ASK = `
import json, socket
def tcp(port):
    try:
        socket.create_connection(("192.0.2.1", port), timeout=TIMES[port]).close()
        return True
    except TimeoutError:
        return False
def udp(port):
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asked.connect(("192.0.2.1", port))
    asked.settimeout(TIMES[port])
    asked.send(b"?")
    try:
        return asked.recv(100) == b"?"
    except TimeoutError:
        return False
TIMES = {443: 10, 3478: 10, 49160: 10, 65535: 10, 8080: 1, 49159: 1}
print(json.dumps({f"{way.__name__} {port}": way(port) for way, ports in
    ((tcp, (443, 3478, 8080)), (udp, (3478, 443, 49160, 65535, 8080, 49159))) for port in ports}))
`;

function text(name) {
  return readFile(path.join(DEPLOY, name), "utf8");
}
