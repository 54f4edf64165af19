// A Debian machine of its own: systemd is booted in it, all that is written to it is gone with it, and a cable leads to
// browsers on another host.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, copyFile, mkdir, readFile, rename, rm, rmdir } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Certificates } from "../lab/net-certificates.js";
import { Run, run } from "../lab/net-system.js";

const TOOLS = path.resolve(import.meta.dirname, "../../target/tools");
const SUITE = "bookworm";
/** What a small server has, and what the package and the image say they need of Debian. */
const PACKAGES = ["systemd", "dbus", "iproute2", "nftables", "procps", "ca-certificates", "libcap2-bin"];
const BOOT_MS = 60_000;
const POLL_MS = 50;
const END_MS = 20_000;
/** Of what the machine has put on its console. */
const CONSOLE = 20_000;

/** Public addresses of documentation, as in the laboratory. */
const NETWORK = { server: "203.0.113.10", visitor: "203.0.113.20" };

/** An empty Debian, made once and then kept as it is. */
export async function debian() {
  const root = path.join(TOOLS, `${SUITE}-${PACKAGES.join("-")}`);
  if (await access(root).then(() => true, () => false)) return root;
  const part = `${root}.${process.pid}`;
  await mkdir(TOOLS, { recursive: true });
  try {
    await run(["debootstrap", "--variant=minbase", `--include=${PACKAGES.join(",")}`, SUITE, part]);
    await rename(part, root);
  } finally {
    await rm(part, { recursive: true, force: true });
  }
  return root;
}

export class Machine {
  server = NETWORK.server;
  /** What the other host knows it by. */
  domain = "relay.lab.test";
  /** Of an authority that the browsers on the other host trust. */
  certificates;
  #name = `throughway-package-${process.pid}`;
  #laboratory;
  #namespace;
  #visitor;
  #container;
  #leader;
  #console = "";

  /** Why systemd could not be booted, if it could not: then this is a directory tree to run programs in. */
  unbootable;

  static async start() {
    const machine = new Machine();
    try {
      await machine.#start(await debian());
    } catch (error) {
      await machine.end();
      throw error;
    }
    return machine;
  }

  async #start(root) {
    this.#laboratory = await Run.begin();
    this.#namespace = await this.#laboratory.namespace("server");
    this.#visitor = await this.#laboratory.namespace("visitor");
    await this.#namespace.cable("eth0", this.#visitor, "eth0");
    await this.#namespace.ip(`addr add ${NETWORK.server}/24 dev eth0`, `route add default via ${NETWORK.visitor}`);
    await this.#visitor.ip(`addr add ${NETWORK.visitor}/24 dev eth0`);
    await this.#visitor.knows(NETWORK.server, this.domain);
    this.certificates = await Certificates.make(this.#laboratory.directory, this.domain, []);
    try {
      await this.#boot(root);
    } catch (error) {
      this.unbootable = `no machine can be booted here: ${error.message}\n${this.#console}`;
      await this.#open(root);
    }
    await this.shell(`echo '${NETWORK.server} ${this.domain}' >> /etc/hosts`);
    await copyFile(this.certificates.authority, this.file("/usr/local/share/ca-certificates/laboratory.crt"));
    await this.run("update-ca-certificates");
  }

  async #boot(root) {
    this.#spawn(["systemd-nspawn",
      "--quiet",
      `--directory=${root}`,
      `--machine=${this.#name}`,
      "--volatile=overlay",
      "--boot",
      "--register=no",
      "--keep-unit",
      "--console=pipe",
      `--network-namespace-path=/run/netns/${this.#namespace.name}`,
    ]);
    await this.#answers("systemctl is-system-running --wait || true", /^(running|degraded)$/m);
  }

  /** The next best: a copy of the tree, with a process in it that does nothing. */
  async #open(root) {
    await this.#stop();
    const copy = path.join(this.#laboratory.directory, "root");
    await run(["cp", "-a", root, copy]);
    const unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", `--mount-proc=${copy}/proc`];
    this.#spawn(this.#namespace.wrap([...unshare, "chroot", copy, "sleep", "infinity"]));
    await this.#answers("echo open", /^open$/m);
  }

  #spawn([command, ...rest]) {
    this.#console = "";
    this.#container = spawn(command, rest, { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#container.stdout, this.#container.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.#console = (this.#console + text).slice(-CONSOLE)));
    }
  }

  /** Waits until there is somebody inside to ask, and the answer is as wanted. */
  async #answers(question, wanted) {
    const container = this.#container;
    let ended;
    container.once("error", (error) => (ended = error.message));
    container.once("exit", (code) => (ended ??= `it ended with status ${code}`));
    for (const deadline = Date.now() + BOOT_MS; Date.now() < deadline && !ended; await pause(POLL_MS)) {
      this.#leader = await child(container.pid);
      if (!this.#leader) continue;
      if (wanted.test(await this.shell(question).catch(() => ""))) return;
    }
    throw new Error(ended ?? "nobody answers");
  }

  /** Where its files can be reached from outside. */
  file(name) {
    return path.join(`/proc/${this.#leader}/root`, name);
  }

  /** The same command inside. */
  wrap(argv) {
    return [
      "nsenter", "--target", String(this.#leader), "--all", "--root", "--wd", "--",
      "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", ...argv,
    ];
  }

  /** The same command on the host at the other end of the cable. */
  get visitor() {
    return { kind: "visitor", wrap: (argv) => this.#visitor.wrap(argv) };
  }

  /** The environment of its browsers. */
  get env() {
    return { ...process.env, HOME: this.certificates.home };
  }

  /** Runs a command inside to its end, and returns what it printed. */
  run(...argv) {
    return run(this.wrap(argv));
  }

  /** Runs lines of shell inside. */
  shell(lines) {
    return this.run("sh", "-euc", lines);
  }

  /** Runs lines of shell on the other host. */
  outside(lines) {
    return run(this.visitor.wrap(["sh", "-euc", lines]));
  }

  async end() {
    await this.#stop();
    // Whatever is left in its namespaces ends with them.
    await this.#laboratory?.end();
    await rmdir(`/run/systemd/nspawn/propagate/${this.#name}`).catch(() => {});
  }

  async #stop() {
    const container = this.#container;
    if (!container?.pid || container.exitCode !== null || container.signalCode !== null) return;
    const ended = once(container, "exit");
    // To nspawn this is the power button.
    container.kill("SIGTERM");
    const deadline = setTimeout(() => container.kill("SIGKILL"), END_MS);
    await ended;
    clearTimeout(deadline);
  }
}

async function child(pid) {
  if (!pid) return undefined;
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  return Number(children.trim().split(" ")[0]) || undefined;
}
