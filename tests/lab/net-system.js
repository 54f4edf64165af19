// Commands of the system, and the namespaces that they are run in, none of which outlives its run.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, constants, mkdir, readFile, readdir, readlink, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { tmpdir } from "node:os";
import path from "node:path";

const NAMESPACES = "/run/netns";
// What a namespace's processes find in /etc in the place of the machine's own.
const ETC = "/etc/netns";
// Whose it is: the process, and when that began, for numbers of processes are used again.
const OURS = /^twlab-(?<pid>\d+)-(?<began>\d+)-/;
const PACKAGES = {
  ip: "iproute2",
  nft: "nftables",
  sysctl: "procps",
  python3: "python3",
  openssl: "openssl",
  certutil: "libnss3-tools",
};
const DEATH_MS = 10_000;

let runs = 0;

/** Says what is missing for a laboratory on this machine, in words for a person; nothing if all is there. */
export async function missing() {
  if (process.getuid() !== 0) return "the laboratory makes network namespaces, and that needs root";
  const devices = await access("/dev/net/tun", constants.R_OK | constants.W_OK).then(() => true, () => false);
  if (!devices) return "the laboratory needs /dev/net/tun, the kernel's devices for its lines";
  for (const [command, name] of Object.entries(PACKAGES)) {
    const there = await run(["sh", "-c", 'command -v "$0"', command]).then(() => true, () => false);
    if (!there) return `the laboratory needs the command ${command}, of the package ${name}`;
  }
  return undefined;
}

/** Runs a command to its end, and returns what it printed. */
export async function run(argv, input = "") {
  const [command, ...rest] = argv;
  const child = spawn(command, rest, { stdio: ["pipe", "pipe", "pipe"] });
  let printed = "";
  let errors = "";
  child.stdout.on("data", (text) => (printed += text));
  child.stderr.on("data", (text) => (errors += text));
  // A command that ends early leaves its input unread: its status tells.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [status] = await once(child, "close");
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${errors || `status ${status}`}\n${input}`);
  return printed;
}

/** What all of these come to, or the first one's error once none of them is under way any more. */
export async function all(promises) {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** The namespaces, files and processes of one laboratory. */
export class Run {
  #namespaces = [];
  /** Where its files lie. */
  directory;
  #prefix;

  static async begin() {
    await sweep();
    const begun = new Run();
    runs += 1;
    begun.#prefix = `twlab-${process.pid}-${await began(process.pid)}-${runs}-`;
    begun.directory = path.join(tmpdir(), `${begun.#prefix}files`);
    await mkdir(begun.directory);
    return begun;
  }

  /** A namespace of its own, with these settings of the kernel and, for those who ask for names, a name server. */
  async namespace(name, { settings = [], nameServer } = {}) {
    const namespace = new Namespace(`${this.#prefix}${name}`);
    this.#namespaces.push(namespace);
    if (nameServer) await namespace.resolve(nameServer);
    await run(["ip", "netns", "add", namespace.name]);
    await run(namespace.wrap(["sysctl", "-qw", ...SETTINGS_OF_ALL, ...settings]));
    await namespace.ip("link set lo up");
    return namespace;
  }

  async end() {
    await removeNamespaces(this.#namespaces.map(({ name }) => name));
    this.#namespaces = [];
    await removeFiles(this.#prefix);
  }
}

// A duplicate address is not waited for, and routes are ours to change.
const SETTINGS_OF_ALL = [
  "net.ipv6.conf.default.accept_dad=0",
  "net.ipv6.conf.all.accept_dad=0",
  "net.ipv6.conf.default.accept_ra=0",
  "net.ipv6.conf.default.router_solicitations=0",
  "net.ipv4.conf.all.rp_filter=0",
  "net.ipv4.conf.default.rp_filter=0",
  "net.ipv4.conf.all.accept_redirects=0",
  "net.ipv4.conf.all.send_redirects=0",
  "net.ipv4.conf.default.send_redirects=0",
];

/** Settings of a namespace that passes packets on. */
export const FORWARDING = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];

class Namespace {
  constructor(name) {
    this.name = name;
  }

  /** The same command inside. Each process becomes the next one, so that its number and its open files stay. */
  wrap(argv) {
    return ["ip", "netns", "exec", this.name, ...argv];
  }

  /** Commands of `ip`, as many as need be, by one process. */
  async ip(...commands) {
    return run(["ip", "-n", this.name, "-batch", "-"], commands.join("\n") + "\n");
  }

  /** Joins a device of this namespace to one of another's. */
  async cable(device, other, itsDevice) {
    await this.ip(`link add ${device} type veth peer name ${itsDevice} netns ${other.name}`, `link set ${device} up`);
    await other.ip(`link set ${itsDevice} up`);
  }

  /** Puts these rules in the place of all there were, in one step. */
  async rules(text) {
    await run(this.wrap(["nft", "-f", "-"]), `flush ruleset\n${text}`);
  }

  resolve(nameServer) {
    return this.#etc("resolv.conf", `nameserver ${nameServer}\n`);
  }

  knows(address, name) {
    return this.#etc("hosts", `127.0.0.1 localhost\n${address} ${name}\n`);
  }

  /** What is run inside finds this file in the place of the machine's own. */
  async #etc(file, text) {
    const directory = path.join(ETC, this.name);
    await mkdir(directory, { recursive: true });
    await writeFile(path.join(directory, file), text);
  }
}

/** Removes what runs have left behind that were killed. */
async function sweep() {
  const found = (await Promise.all([NAMESPACES, ETC, tmpdir()].map(names))).flat();
  const prefixes = new Set(found.map((name) => OURS.exec(name)).filter(Boolean).map(([prefix]) => prefix));
  for (const prefix of prefixes) {
    const { pid, began: then } = OURS.exec(prefix).groups;
    if ((await began(pid)) === then) continue;
    await removeNamespaces((await names(NAMESPACES)).filter((name) => name.startsWith(prefix)));
    await removeFiles(prefix);
  }
}

/** Removes namespaces with all that runs in them. */
async function removeNamespaces(left) {
  const deadline = Date.now() + DEATH_MS;
  for (let pids = await inside(left); pids.length > 0; pids = await inside(left)) {
    if (Date.now() > deadline) throw new Error(`processes ${pids.join(", ")} of the laboratory can't be ended`);
    pids.forEach(kill);
    await pause(5);
  }
  // Another run may have swept some of them away.
  await run(["ip", "-force", "-batch", "-"], left.map((name) => `netns del ${name}\n`).join("")).catch(() => {});
  const still = (await names(NAMESPACES)).filter((name) => left.includes(name));
  if (still.length > 0) throw new Error(`namespaces that can't be removed: ${still.join(", ")}`);
}

/** The processes in these namespaces. */
async function inside(namespaces) {
  const found = await Promise.all(namespaces.map((name) => stat(path.join(NAMESPACES, name)).catch(() => undefined)));
  const inodes = new Set(found.filter(Boolean).map(({ ino }) => `net:[${ino}]`));
  const pids = (await names("/proc")).filter((name) => /^\d+$/.test(name));
  const theirs = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/ns/net`).catch(() => undefined)));
  return pids.filter((_, index) => inodes.has(theirs[index])).map(Number);
}

async function removeFiles(prefix) {
  for (const directory of [ETC, tmpdir()]) {
    const left = (await names(directory)).filter((name) => name.startsWith(prefix));
    const remove = (name) => rm(path.join(directory, name), { recursive: true, force: true, maxRetries: 5 });
    await Promise.all(left.map(remove));
  }
  // Others' settings, or none: only an empty directory goes.
  await rmdir(ETC).catch(() => {});
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

async function names(directory) {
  return readdir(directory).catch(() => []);
}

/** When a process began, in the kernel's own count; undefined if there is none. */
async function began(pid) {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The name, in parentheses, may hold anything; the 22nd field is the 20th after it.
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
}
