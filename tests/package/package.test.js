// The life of the Debian package on a machine: from an empty Debian to a call, through a reload and an upgrade, to
// nothing.
// The tests are one story, told in order.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { Browsers } from "../lab/browser.js";
import { Certificates } from "../lab/net-certificates.js";
import { run } from "../lab/net-system.js";
import { Machine } from "./machine.js";
import { serviceOn } from "./service.js";

const SOURCES = path.resolve(import.meta.dirname, "../..");
const CONFIG = "/etc/throughway/throughway.toml";
const NEXT = "0.1.0-2";
const binary = process.env.THROUGHWAY_BIN;

let machine;
let service;
let token;
let browsers;
let directory;
let empty;

before(async () => {
  if (!binary) throw new Error("THROUGHWAY_BIN must name the program to pack; tests/run package sets it");
  directory = await mkdtemp(path.join(tmpdir(), "throughway-package-"));
  machine = await Machine.start();
  service = serviceOn(machine);
  browsers = new Browsers({ env: machine.env });
});

after(async () => {
  await browsers?.close();
  await machine?.end();
  if (directory) await rm(directory, { recursive: true, force: true });
});

test("an empty Debian takes the package, which says what to do and starts nothing", async () => {
  await bring("first.deb");
  await bring("next.deb", "--deb-version", NEXT);
  empty = await everything();

  const said = await machine.run("apt-get", "install", "-qy", "--no-install-recommends", "/root/first.deb");

  assert.match(said, /sudo throughway init --config \/etc\/throughway\/throughway\.toml/);
  assert.equal(await service.isActive(), false);
});

test("it is enabled, waits for its configuration, and counts as no failure", needsSystemd(async () => {
  assert.equal(await service.asked("is-enabled"), "enabled");
  assert.equal(await service.asked("is-failed"), "inactive");
}));

test("init writes a configuration that the service alone may read, and the service starts by it", async () => {
  const init = ["throughway", "init", "--config", CONFIG, "--domain", machine.domain, "--tls", "files", "--yes",
    "--certificate", "/etc/throughway/tls/fullchain.pem", "--key", "/etc/throughway/tls/privkey.pem"];
  await renewed(machine.certificates);

  const said = await machine.run(...init);
  token = /\/call\?token=(\w+)/.exec(said)?.[1];
  await service.start();

  assert.equal((await machine.run("stat", "-c", "%U %G %a", CONFIG)).trim(), "root throughway-etc 640");
  assert.ok(token, said);
  assert.ok(await service.isActive());
  await assert.rejects(machine.run(...init), /exists/);
});

test("the service runs as its unit says: a user of its own, one capability, filtered calls", needsSystemd(async () => {
  const pid = await service.pid();

  const status = Object.fromEntries(
    (await machine.run("cat", `/proc/${pid}/status`)).split("\n").map((line) => line.split(/:\s*/)),
  );
  const uid = Number.parseInt(status.Uid, 10);

  // The range from which systemd takes dynamic users.
  assert.ok(uid >= 61184 && uid <= 65519, `uid ${uid}`);
  // CAP_NET_BIND_SERVICE is the tenth bit.
  assert.deepEqual([status.CapEff, status.CapBnd], ["0000000000000400", "0000000000000400"]);
  assert.deepEqual([status.NoNewPrivs, status.Seccomp], ["1", "2"]);
  await machine.run("nsenter", "--target", pid, "--mount", "sh", "-c", "! touch /etc/written && ! touch /usr/written");
  assert.doesNotMatch(await journal(), /permission denied|not permitted/i);
}));

test("doctor finds nothing wrong", async () => {
  // It ends with status 3 when it finds a fault.
  await assert.doesNotReject(machine.run("throughway", "doctor"));
});

test("two browsers on another host call each other through the relay alone", async () => {
  const browser = await browsers.on(machine.visitor);
  const [alice, bob] = await Promise.all(["alice", "bob"].map(async (name) => {
    const person = await browser.visit(`https://${machine.domain}/chat?name=${name}&relay=1&token=${token}`);
    await person.sees("#status", new RegExp(`Signed in as ${name}`));
    return person;
  }));

  await alice.writes("#to", "bob");
  await bob.clicks("#accept");
  await alice.writes("#text", "through the relay");

  await bob.sees("#log .theirs", /through the relay/);
  await Promise.all([alice, bob].map((person) => browser.leave(person)));
});

test("a reload takes a new secret from the file, and a bad file is refused while the service goes on", async () => {
  const pid = await service.pid();
  const secret = "0123456789abcdef".repeat(4);

  await machine.shell(`sed -i 's/^secrets = .*/secrets = ["${secret}"]/' ${CONFIG}`);
  await service.reload();
  const { username, credential } = (await ice()).find((server) => server.username);
  const expected = createHmac("sha1", secret).update(username).digest("base64");

  assert.equal(credential, expected);
  await machine.shell(`cp -p ${CONFIG} ${CONFIG}.good; echo nonsense >> ${CONFIG}`);
  await assert.rejects(service.reload());
  await machine.shell(`mv ${CONFIG}.good ${CONFIG}`);
  assert.equal(await service.pid(), pid);
});

test("a renewed certificate is handed over by certbot's hook and served", async () => {
  const pid = await service.pid();
  const fresh = await Certificates.make(directory, machine.domain, []);

  await renewed(fresh);
  const served = await machine.outside(
    `openssl s_client -connect ${machine.domain}:443 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint`);

  assert.equal(served, await run(["openssl", "x509", "-noout", "-fingerprint", "-in", fresh.certificate]));
  assert.equal(await service.pid(), pid);
});

test("an upgrade restarts the service, and no connection is refused or cut off meanwhile", needsSystemd(async () => {
  await machine.run("systemctl", "enable", "throughway.socket");
  await service.stop();
  await service.start("throughway.socket");
  await service.start();
  const pid = await service.pid();
  const [command, ...rest] = machine.visitor.wrap(
    [process.execPath, path.join(import.meta.dirname, "prober.js"), machine.domain, "443"]);
  const prober = spawn(command, rest, { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  prober.stdout.setEncoding("utf8").on("data", (text) => (said += text));
  await once(prober.stdout, "data");

  await machine.run("apt-get", "install", "-qy", "/root/next.deb");
  prober.stdin.end();
  await once(prober, "close");
  const told = JSON.parse(said.split("\n").at(-2));

  assert.deepEqual([told.refused, told.cutOff], [[], []]);
  assert.ok(told.answered > 1);
  assert.ok(await service.isActive());
  assert.notEqual(await service.pid(), pid);
}));

test("an upgrade leaves the new version running with the configuration as it was", async () => {
  const configuration = await machine.run("cat", CONFIG);

  await machine.run("apt-get", "install", "-qy", "--reinstall", "/root/next.deb");

  const installed = await machine.run("dpkg-query", "-W", "-f", "${Version} ${Status}", "throughway");
  assert.equal(installed, `${NEXT} install ok installed`);
  assert.ok(await service.isActive());
  assert.equal(await machine.run("cat", CONFIG), configuration);
});

test("a removal keeps what was configured, and a purge leaves nothing", async () => {
  if (machine.unbootable) await service.stop();
  await machine.run("apt-get", "remove", "-qy", "throughway");
  const kept = await machine.run("ls", CONFIG, "/var/lib/private/throughway");
  await machine.run("apt-get", "purge", "-qy", "throughway");

  assert.match(kept, /relayed\.json/);
  assert.deepEqual(difference(empty, await everything()), []);
  assert.equal(await machine.shell("pgrep throughway || true"), "");
});

/** Makes a package and puts it into the machine. */
async function bring(name, ...options) {
  const made = (await run([path.join(SOURCES, "deploy/package"), "--fast", ...options])).trim().split("\n").at(-1);
  await copyFile(path.resolve(SOURCES, made), machine.file(`/root/${name}`));
}

/** What only systemd can show is told to be missing on a machine that can't be booted. */
function needsSystemd(body) {
  return (t) => (machine.unbootable ? t.skip(machine.unbootable.split("\n", 1)[0]) : body(t));
}

function journal() {
  return machine.run("journalctl", "--unit=throughway", "--output=cat");
}

async function ice() {
  return JSON.parse(await machine.outside(`curl -sk https://${machine.domain}/ice?token=${token}`));
}

/** What certbot does once it has a certificate: it keeps it for root alone, and runs the hook. */
async function renewed({ certificate, key }) {
  const live = "/etc/letsencrypt/live/relay";
  await machine.run("mkdir", "-m", "700", "-p", live);
  await copyFile(certificate, machine.file(`${live}/fullchain.pem`));
  await copyFile(key, machine.file(`${live}/privkey.pem`));
  await machine.shell(`chmod 600 ${live}/*
    RENEWED_LINEAGE=${live} /usr/share/doc/throughway/examples/certbot-hook
    rm -r /etc/letsencrypt`);
}

/** Every file with its kind, mode and owner; what runs (processes, journals) and dpkg's own books are left out. */
async function everything() {
  const books = BOOKS.map((book) => `-path ${book}`).join(" -o ");
  const found = await machine.shell(`find / -xdev \\( ${books} \\) -prune -o \
    -printf '%p %y %m %U:%G %l\\n'`);
  const users = await machine.run("cat", "/etc/passwd", "/etc/group");
  return new Set([...found.split("\n"), ...users.split("\n").map((line) => `account ${line}`)]);
}

/** Of those: lists that dpkg, apt and systemd keep of what they did, and copies of the accounts before a change. */
const BOOKS = [
  "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp",
  "'/etc/*-'", "/etc/.pwd.lock",
];

function difference(one, other) {
  return [
    ...[...one].filter((line) => !other.has(line)).map((line) => `gone: ${line}`),
    ...[...other].filter((line) => !one.has(line)).map((line) => `left: ${line}`),
  ];
}
