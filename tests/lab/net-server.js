// The real server on its public addresses, configured as on a VPS.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";

const START_MS = 30_000;
const END_MS = 10_000;
// Characters of the log that are kept.
const LOG = 1_000_000;

/** Where the laboratory's hosts have their public addresses: what a relay must reach here, and nowhere else. */
export const PUBLIC = ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"];

export class Server {
  name = "relay.lab.test";
  ip4 = "203.0.113.10";
  ip6 = "2001:db8::10";
  /** A second address, of no name, by which kinds of NAT can be told apart. */
  otherIp4 = "198.51.100.10";
  https = 443;
  stun = 3478;
  /** The end of what it has logged and printed, since the laboratory was opened. */
  log = "";
  #namespace;
  #directory;
  #certificates;
  #child;
  #more = "";

  constructor(namespace, directory) {
    this.#namespace = namespace;
    this.#directory = path.join(directory, "server");
  }

  get origin() {
    return `https://${this.name}`;
  }

  get pid() {
    return this.#child?.pid;
  }

  get addresses() {
    return [this.ip4, this.otherIp4, this.ip6];
  }

  wrap(argv) {
    return this.#namespace.wrap(argv);
  }

  async install(certificates) {
    this.#certificates = certificates;
    await mkdir(this.#directory);
  }

  /** Starts it with these tables and keys of its configuration besides those of the environment below. */
  async start(more = this.#more) {
    if (this.#running) throw new Error("the laboratory's server runs already");
    this.#more = more;
    const config = path.join(this.#directory, "throughway.toml");
    await writeFile(config, more);
    const binary = process.env.THROUGHWAY_BIN;
    if (!binary) throw new Error("THROUGHWAY_BIN must name the server to test; tests/run lab sets it");
    const [command, ...rest] = this.wrap([binary, "--config", config]);
    this.#child = spawn(command, rest, { env: this.#environment(), stdio: ["ignore", "pipe", "pipe"] });
    await this.#ready();
  }

  /** Ends it as a service manager does. */
  async stop() {
    if (!this.#running) return;
    const child = this.#child;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const deadline = setTimeout(() => child.kill("SIGKILL"), END_MS);
    await ended;
    clearTimeout(deadline);
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  get #running() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  // By environment, so that the file may open any table without one being there twice. All limits are the defaults.
  #environment() {
    const list = (values) => JSON.stringify(values);
    return {
      ...process.env,
      THROUGHWAY__PUBLIC_HOST: this.name,
      THROUGHWAY__HTTP__LISTEN: list([`[::]:${this.https}`]),
      THROUGHWAY__HTTP__PLAIN_LISTEN: list([]),
      THROUGHWAY__TLS__MODE: "files",
      THROUGHWAY__TLS__CERTIFICATE: this.#certificates.certificate,
      THROUGHWAY__TLS__KEY: this.#certificates.key,
      THROUGHWAY__TURN__LISTEN_UDP: list([`[::]:${this.stun}`, `[::]:${this.https}`]),
      THROUGHWAY__TURN__PEERS__ALLOW: list(PUBLIC),
    };
  }

  /** Waits for the line that starts with `Ready`. */
  async #ready() {
    const child = this.#child;
    let said = "";
    const deadline = setTimeout(() => child.kill("SIGKILL"), START_MS);
    await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => {
          this.log = (this.log + text).slice(-LOG);
          said = (said + text).slice(-LOG);
          if (/^Ready/m.test(said)) resolve();
        });
      }
      child.once("error", reject);
      child.once("exit", () => reject(new Error(`the server ended before it was ready:\n${said}`)));
    }).finally(() => clearTimeout(deadline));
  }
}
