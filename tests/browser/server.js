// The real server, started for a test: random ports of loopback, its files in a directory of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const START_MS = 30_000;

export class Server {
  #directory;
  #child;
  #errors = "";
  #turn = "";
  #more = "";

  /** `iceServers` makes the list that clients are handed, in TOML, of the ports that are served; `more` is tables. */
  static async start({ iceServers, more = "" } = {}) {
    const server = new Server();
    server.#more = more;
    server.#directory = await mkdtemp(path.join(tmpdir(), "throughway-"));
    await server.#run({ https: 0, http: 0, udp: 0 });
    if (iceServers) {
      server.#turn = `ice_servers = ${iceServers(server.ports)}\n`;
      await server.restart();
    }
    return server;
  }

  /** Ends it by SIGTERM and starts it again on the same ports, unless it is told to stay away a while. */
  async restart(whileAway = async () => {}) {
    await this.#end();
    await whileAway();
    await this.#run(this.ports);
  }

  async stop() {
    await this.#end();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #run({ https, http, udp }) {
    const config = path.join(this.#directory, "throughway.toml");
    await writeFile(
      config,
      `[http]
listen = ["127.0.0.1:${https}"]
plain_listen = ["127.0.0.1:${http}"]
[turn]
listen_udp = ["127.0.0.1:${udp}"]
listen_tcp = []
listen_tls = []
${this.#turn}${this.#more}`,
    );
    const binary = process.env.THROUGHWAY_BIN;
    if (!binary) throw new Error("THROUGHWAY_BIN must name the server to test; tests/run browser sets it");
    this.#child = spawn(binary, ["--config", config], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stderr.on("data", (text) => (this.#errors = (this.#errors + text).slice(-4000)));
    const child = this.#child;
    const deadline = setTimeout(() => child.kill("SIGKILL"), START_MS);
    try {
      this.ports = await banner(child);
    } catch (error) {
      throw new Error(`${error.message}\n${this.#errors}`);
    } finally {
      clearTimeout(deadline);
    }
  }

  async #end() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const deadline = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
    await ended;
    clearTimeout(deadline);
  }
}

/** Reads lines such as `    udp 127.0.0.1:5555   stun, turn` up to the one that starts with `Ready`. */
async function banner(child) {
  const ports = {};
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) {
    if (line.startsWith("Ready")) {
      // Whatever it prints later must not fill the pipe.
      child.stdout.resume();
      return ports;
    }
    const [protocol, address, ...serves] = line.trim().split(/[\s,]+/);
    const port = Number(address?.split(":").pop());
    if (protocol === "udp") ports.udp = port;
    if (protocol === "tcp" && serves.includes("https")) ports.https = port;
    if (protocol === "tcp" && serves.includes("http")) ports.http = port;
  }
  throw new Error("the server ended before it was ready");
}
