// What is at a client's end of its line: one host or two, and the routers between them and the internet.

import { FORWARDING, all } from "./net-system.js";

/**
 * Routers are listed from the host outwards. `masquerade` is how a router translates addresses, `outward` what it
 * lets out, `cone` that whatever comes to a mapped port goes to its host, `settings` are the kernel's. Of `expected`,
 * `nat` is "none", "cone" (open to anybody), "restricted" (to addresses and ports that were sent to), "symmetric" (a
 * mapping for each destination), or "unknown" where no UDP gets out to tell.
 */
const ROUTER = { masquerade: "masquerade", outward: "accept" };
const DNS = "udp dport 53 accept";
const ANY = { udp: true, tcp443: true, v4: true, v6: false };

export const KINDS = {
  open: { routers: [], expected: { ...ANY, nat: "none", v6: true } },
  "full-cone": { routers: [{ ...ROUTER, cone: true }], expected: { ...ANY, nat: "cone" } },
  "port-restricted": { routers: [ROUTER], expected: { ...ANY, nat: "restricted" } },
  symmetric: {
    routers: [{ ...ROUTER, masquerade: "masquerade fully-random" }],
    expected: { ...ANY, nat: "symmetric" },
  },
  "double-nat": { routers: [ROUTER, ROUTER], expected: { ...ANY, nat: "restricted" } },
  "udp-blocked": {
    routers: [{ ...ROUTER, outward: `${DNS}; meta l4proto != udp accept` }],
    expected: { ...ANY, udp: false, nat: "unknown" },
  },
  "only-443": {
    routers: [{ ...ROUTER, outward: `${DNS}; tcp dport 443 accept` }],
    expected: { ...ANY, udp: false, nat: "unknown" },
  },
  "ipv6-only": {
    routers: [{ ...ROUTER, masquerade: undefined }],
    expected: { ...ANY, nat: "none", v4: false, v6: true },
  },
  lossy: { routers: [ROUTER], line: { delay: 80, loss: 0.05 }, expected: { ...ANY, nat: "restricted" } },
  forgetful: {
    routers: [{
      ...ROUTER,
      settings: ["net.netfilter.nf_conntrack_udp_timeout=30", "net.netfilter.nf_conntrack_udp_timeout_stream=30"],
    }],
    expected: { ...ANY, nat: "restricted" },
  },
};

/** Two hosts who hear nothing of each other in their home, as in a guests' network, but may call out and in again. */
export const PAIRS = {
  hairpin: { routers: [{ ...ROUTER, cone: true }], expected: { ...ANY, nat: "cone" } },
};

// Linux has no mapping that is good for any destination: a cone's host uses ports of its own, and keeps them outside.
const PORTS = [[20_000, 29_999], [30_000, 39_999]];
const LAN = "192.168.1";
const FIRST = 2;
const CARRIER = "100.64.0";

/** One home, at the end of one line. */
export class Home {
  #kind;
  #internet;
  #line;
  #routers;
  #addresses;
  /** @type {Host[]} */
  hosts;

  /** `addresses` gives public ones: each call returns others. */
  static async build({ run, internet, name, kind, pair = false, addresses, line, nameServers }) {
    const home = new Home();
    home.#kind = pair ? PAIRS[kind] : KINDS[kind];
    home.#internet = internet;
    home.#addresses = addresses;
    const { v4 } = home.#kind.expected;
    const cone = home.#kind.routers.some(({ cone }) => cone);
    const [hosts, routers] = await all([
      all(PORTS.slice(0, pair ? 2 : 1).map((range, index) => run.namespace(`${name}-host${index}`, {
        settings: cone ? [`net.ipv4.ip_local_port_range=${range.join(" ")}`] : [],
        nameServer: v4 ? nameServers.ip4 : nameServers.ip6,
      }))),
      all(home.#kind.routers.map(({ settings = [] }, index) => (
        run.namespace(`${name}-router${index}`, { settings: [...FORWARDING, ...settings] })
      ))),
    ]);
    home.#routers = routers;
    const { expected } = home.#kind;
    home.hosts = hosts.map((namespace, index) => (
      new Host(home, { kind, expected, namespace, ports: PORTS[index], number: FIRST + index })
    ));
    await home.#connect({ ...line, ...home.#kind.line });
    await home.move();
    return home;
  }

  /** The host's network becomes another: addresses, and all that the routers had noted for the old ones, are gone. */
  async move() {
    this.public = this.#addresses();
    const { ip4, prefix } = this.public;
    await all([
      this.#internet.route(this.#line, this.#expects("v4") && ip4, this.#expects("v6") && `${prefix}::/64`),
      ...this.hosts.map((host) => host.namespace.ip(...this.#addressesOf(host))),
      ...this.#routers.map((router, index) => router.ip(...this.#addressesAt(index))),
      ...this.#routers.map((router, index) => router.rules(this.#rules(index))),
    ]);
  }

  cut() {
    return this.#internet.cut(this.#line);
  }

  mend() {
    return this.#internet.mend(this.#line);
  }

  /** How many packets the line has taken and lost. */
  counts() {
    return this.#internet.counts(this.#line);
  }

  async #connect(line) {
    const { hosts } = this;
    const [first, second] = this.#routers;
    if (first) await all(hosts.map((host, index) => first.cable(`lan${index}`, host.namespace, "eth0")));
    if (second) await second.cable("lan0", first, "wan");
    const end = this.#routers.at(-1) ?? hosts[0].namespace;
    this.#line = await this.#internet.line(end, first ? "wan" : "eth0", line);
  }

  #addressesOf(host) {
    const { ip4, prefix } = this.public;
    const lines = ["addr flush dev eth0 scope global"];
    if (this.#routers.length === 0) {
      lines.push(`addr add ${ip4}/32 dev eth0`, "route replace default dev eth0");
      lines.push(`addr add ${prefix}::2/64 dev eth0 nodad`, "route replace ::/0 dev eth0");
      return lines;
    }
    if (this.#expects("v4")) {
      lines.push(`addr add ${host.local}/24 dev eth0`, `route replace default via ${LAN}.1 dev eth0`);
    }
    if (this.#expects("v6")) {
      lines.push(`addr add ${prefix}::2/64 dev eth0 nodad`, `route replace ::/0 via ${prefix}::1 dev eth0`);
    }
    return lines;
  }

  /** The addresses of a router: its home's at the inner side, and its line's, or a carrier's, at the outer one. */
  #addressesAt(index) {
    const lines = [];
    const inner = this.hosts.map((_, at) => `lan${at}`);
    const outermost = index === this.#routers.length - 1;
    if (index > 0) lines.push("addr flush dev lan0 scope global", `addr add ${CARRIER}.1/24 dev lan0`);
    if (index === 0) inner.forEach((device) => lines.push(`addr flush dev ${device} scope global`));
    if (index === 0 && this.#expects("v4")) {
      inner.forEach((device, at) => {
        lines.push(`addr add ${LAN}.1/32 dev ${device}`, `route replace ${this.hosts[at].local}/32 dev ${device}`);
      });
    }
    if (index === 0 && this.#expects("v6")) {
      lines.push(`addr add ${this.public.prefix}::1/64 dev lan0 nodad`, "route replace ::/0 dev wan");
    }
    if (!this.#expects("v4")) return lines;
    lines.push("addr flush dev wan scope global");
    if (outermost) lines.push(`addr add ${this.public.ip4}/32 dev wan`, "route replace default dev wan");
    else lines.push(`addr add ${CARRIER}.2/24 dev wan`, `route replace default via ${CARRIER}.1 dev wan`);
    return lines;
  }

  /** A stranger's packet ends at the outer device: no socket of the router gets it, and it leaves no mapping. */
  #rules(index) {
    const { masquerade, outward, cone } = this.#kind.routers[index];
    const inward = this.hosts.map(({ ports, local }) => (
      `ip daddr ${this.public.ip4} udp dport ${ports.join("-")} dnat ip to ${local}`
    ));
    return `
      table inet home {
        chain prerouting {
          type nat hook prerouting priority dstnat
          ${cone ? inward.join("\n") : ""}
        }
        chain postrouting {
          type nat hook postrouting priority srcnat
          ${cone ? `ip saddr ${LAN}.0/24 oifname "lan*" ct status dnat snat ip to ${this.public.ip4}` : ""}
          ${masquerade ? `oifname "wan" ${masquerade}` : ""}
        }
        chain forward {
          type filter hook forward priority filter; policy drop
          ct state established,related accept
          ct status dnat accept
          iifname "lan*" oifname "wan" jump outward
        }
        chain outward {
          ${outward.replaceAll("; ", "\n")}
        }
        chain input {
          type filter hook input priority filter; policy drop
          ct state established,related accept
          iifname "lan*" accept
        }
      }`;
  }

  #expects(family) {
    return this.#kind.expected[family];
  }
}

/** A client's machine. */
export class Host {
  #home;
  #number;

  constructor(home, { number, ...rest }) {
    this.#home = home;
    this.#number = number;
    Object.assign(this, rest);
  }

  /** The same command on this machine. */
  wrap(argv) {
    return this.namespace.wrap(argv);
  }

  /** Its IPv4 address in its home. */
  get local() {
    return `${LAN}.${this.#number}`;
  }

  /** What the internet sees of it: { ip4, prefix }, the latter of its IPv6 addresses. */
  get public() {
    return this.#home.public;
  }

  /** It is in another network from here on: another address, and another one outside. */
  async changeAddress() {
    this.#number += 10;
    await this.#home.move();
  }

  /** Its line is dead: whatever is sent is lost, and nobody is told. */
  async cut() {
    await this.#home.cut();
  }

  async mend() {
    await this.#home.mend();
  }

  /** What its line has carried: { up, down }, each { taken, lost, full } in packets. */
  async counts() {
    return this.#home.counts();
  }
}
