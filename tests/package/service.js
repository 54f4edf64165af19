// The service on a machine: run by systemd, or, on one that could not be booted, by hand as its unit has it.

import { spawn } from "node:child_process";
import { once } from "node:events";

const UNIT = "/usr/lib/systemd/system/throughway.service";
const START_MS = 30_000;

export function serviceOn(machine) {
  return machine.unbootable ? new ByHand(machine) : new Systemd(machine);
}

class Systemd {
  #machine;

  constructor(machine) {
    this.#machine = machine;
  }

  start(unit = "throughway") {
    return this.#machine.run("systemctl", "start", unit);
  }

  stop() {
    return this.#machine.run("systemctl", "stop", "throughway");
  }

  reload() {
    return this.#machine.run("systemctl", "reload", "throughway");
  }

  async asked(question) {
    return (await this.#machine.shell(`systemctl ${question} throughway || true`)).trim();
  }

  async isActive() {
    return (await this.asked("is-active")) === "active";
  }

  async pid() {
    return (await this.#machine.run("systemctl", "show", "--property=MainPID", "--value", "throughway")).trim();
  }
}

/** The command of the unit, without all that systemd puts around it. */
class ByHand {
  #machine;
  #child;

  constructor(machine) {
    this.#machine = machine;
  }

  async start() {
    await this.#machine.run("install", "-d", "/run/throughway", "/var/lib/private/throughway");
    const [command, ...rest] = this.#machine.wrap(
      ["env", "STATE_DIRECTORY=/var/lib/private/throughway", ...await this.#command("ExecStart")]);
    this.#child = spawn(command, rest, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    const deadline = setTimeout(() => this.#child.kill("SIGKILL"), START_MS);
    await new Promise((resolve, reject) => {
      for (const stream of [this.#child.stdout, this.#child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => {
          said = (said + text).slice(-4000);
          if (/^Ready/m.test(said)) resolve();
        });
      }
      this.#child.once("exit", () => reject(new Error(`the server ended before it was ready:\n${said}`)));
    }).finally(() => clearTimeout(deadline));
  }

  async stop() {
    if (!await this.isActive()) return;
    const ended = once(this.#child, "exit");
    await this.#machine.run("kill", await this.pid());
    await ended;
  }

  async reload() {
    await this.#machine.run(...await this.#command("ExecReload"));
  }

  async isActive() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async pid() {
    return (await this.#machine.run("pgrep", "--exact", "throughway")).trim();
  }

  async #command(key) {
    const unit = await this.#machine.run("cat", UNIT);
    return new RegExp(`^${key}=(.*)$`, "m").exec(unit)[1].split(" ");
  }
}
