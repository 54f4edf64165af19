// A laboratory of bad networks: the real server on the internet, and clients behind every kind of router.
//
//     hosts - routers - line - internet - server      each a network namespace, in which real programs run unchanged
//
// Nothing leaves the machine: the namespaces are joined to each other and to nothing else.

import { Certificates } from "./net-certificates.js";
import { Home, KINDS, PAIRS } from "./net-home.js";
import { Internet } from "./net-internet.js";
import { Server } from "./net-server.js";
import { Run, all, missing } from "./net-system.js";

// Each side's public addresses are of a network of its own.
const SIDES = { a: "203.0.113", b: "198.51.100" };
const FIRST_ADDRESS = 20;
const LAST_ADDRESS = 250;
// Far above what a call takes, and what a home has today.
const RATE = 100e6;

export class Lab {
  #run;
  #internet;
  #line;
  #homes = new Map();
  #next = { a: FIRST_ADDRESS, b: FIRST_ADDRESS };
  /** What lab.host can be asked for. */
  kinds = Object.keys(KINDS);
  /** What lab.pair can be asked for. */
  pairs = Object.keys(PAIRS);
  /** @type {Server} */
  server;
  /** The certificate, PEM, of the authority that the server's is by. */
  authority;
  /** The environment of a browser that trusts it. */
  env;

  /** `delay` is of each client's line, in ms each way; `loss` is the share of packets that are lost on it, each way. */
  static async open({ delay = 30, loss = 0 } = {}) {
    const lack = await missing();
    if (lack) throw new Error(lack);
    const lab = new Lab();
    lab.#line = { delay, loss, rate: RATE };
    lab.#run = await Run.begin();
    try {
      await lab.#build();
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** The host of this kind at that side, "a" or "b": built when it is first asked for. */
  async host(kind, side) {
    if (!Object.hasOwn(KINDS, kind)) throw new Error(`no kind of network ${kind}: there are ${this.kinds.join(", ")}`);
    const { hosts } = await this.#home(kind, side);
    return hosts[0];
  }

  /** Two hosts in one home. */
  async pair(kind) {
    if (!Object.hasOwn(PAIRS, kind)) throw new Error(`no pair ${kind}: there are ${this.pairs.join(", ")}`);
    const { hosts } = await this.#home(kind, "a");
    return hosts;
  }

  /** Removes every process, namespace and file of it. */
  async close() {
    // What is being built still would come after it is removed.
    await Promise.allSettled(this.#homes.values());
    await this.server?.stop();
    await this.#internet?.close();
    await this.#run.end();
  }

  async #build() {
    const { directory } = this.#run;
    const [internet, namespace] = await all([Internet.namespace(this.#run), this.#run.namespace("server")]);
    this.server = new Server(namespace, directory);
    const { name, ip4, ip6, addresses } = this.server;
    const [certificates] = await all([
      Certificates.make(directory, name, addresses),
      Internet.open(internet, { name, ip4, ip6 }).then(async (opened) => {
        this.#internet = opened;
        await opened.attach(namespace, this.server);
      }),
    ]);
    this.authority = certificates.authority;
    this.env = { ...process.env, HOME: certificates.home };
    await this.server.install(certificates);
    await this.server.start();
  }

  #home(kind, side) {
    const name = `${side}-${kind}`;
    if (!this.#homes.has(name)) {
      this.#homes.set(name, Home.build({
        run: this.#run,
        internet: this.#internet,
        name,
        kind,
        pair: Object.hasOwn(PAIRS, kind),
        addresses: () => this.#addresses(side),
        line: this.#line,
        nameServers: this.#internet.nameServers,
      }));
    }
    return this.#homes.get(name);
  }

  #addresses(side) {
    const network = SIDES[side];
    if (!network) throw new Error(`no side ${side} of the laboratory: there are a and b`);
    const number = this.#next[side]++;
    if (number > LAST_ADDRESS) throw new Error(`side ${side} has no more public addresses`);
    return { ip4: `${network}.${number}`, prefix: `2001:db8:${side}:${number}` };
  }
}
