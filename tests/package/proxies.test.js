// The recipes for reverse proxies, run as they are written but for names, ports and certificates: a member signs in
// through each, and is known by its own address.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { Certificates } from "../lab/net-certificates.js";
import { run } from "../lab/net-system.js";
import { Server } from "../browser/server.js";

const { WebSocket } = createRequire(new URL("../browser/package.json", import.meta.url))("ws");
const RECIPES = new URL("../../deploy/", import.meta.url);
const NAME = "calls.example.org";
const TOKEN = "0123456789abcdef";
// The proxy is at 127.0.0.1, and its clients elsewhere.
const CLIENT = "127.0.0.2";
const START_MS = 20_000;
const POLL_MS = 50;

let directory;
let certificates;
let authority;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "throughway-proxies-"));
  certificates = await Certificates.make(directory, NAME, []);
  authority = await readFile(certificates.authority);
});

after(async () => {
  if (directory) await rm(directory, { recursive: true, force: true });
});

test("behind nginx", async () => {
  await behind("trusted_proxies", "http", async ({ port, upstream }) => {
    const site = (await recipe("nginx.conf"))
      .replace("listen 443 ssl;", `listen 127.0.0.1:${port} ssl;`).replace("    listen [::]:443 ssl;\n", "")
      .replace(/\/etc\/letsencrypt\S*fullchain\.pem/, certificates.certificate)
      .replace(/\/etc\/letsencrypt\S*privkey\.pem/, certificates.key)
      .replaceAll("127.0.0.1:8080", `127.0.0.1:${upstream}`);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    const file = await written("nginx.whole.conf", `daemon off;
      pid ${directory}/nginx.pid;
      error_log stderr;
      events {}
      http {
        access_log off;
        ${temporary.map((kind) => `${kind}_temp_path ${directory}/${kind};`).join("\n")}
        ${site}
      }`);
    const nginx = ["nginx", "-p", directory, "-e", "stderr", "-c", file];
    await run([...nginx, "-t"]);
    return nginx;
  });
});

test("behind Caddy", async () => {
  await behind("trusted_proxies", "http", async ({ port, upstream }) => {
    const text = (await recipe("Caddyfile"))
      .replaceAll("127.0.0.1:8080", `127.0.0.1:${upstream}`)
      .replace("calls.example.org {", `{\n\tadmin off\n\tauto_https disable_redirects\n}\n\nhttps://${NAME}:${port} {
\tbind 127.0.0.1\n\ttls ${certificates.certificate} ${certificates.key}`);
    return ["caddy", "run", "--adapter", "caddyfile", "--config", await written("Caddyfile", text)];
  });
});

test("behind haproxy, which leaves TLS closed", async () => {
  await behind("proxy_protocol", "https", async ({ port, upstream }) => {
    const text = (await recipe("haproxy.cfg"))
      .replace(":::443 v4v6", `127.0.0.1:${port}`)
      .replaceAll("127.0.0.1:8443", `127.0.0.1:${upstream}`);
    return ["haproxy", "-db", "-f", await written("haproxy.cfg", text)];
  });
});

/** Signs in through the proxy that `start` gives the command of, and asks the server who that was. */
async function behind(key, listener, start) {
  process.env.THROUGHWAY__PUBLIC_HOST = NAME;
  process.env.THROUGHWAY__HTTP__TRUSTED_PROXIES = key === "trusted_proxies" ? '["127.0.0.1"]' : "[]";
  process.env.THROUGHWAY__HTTP__PROXY_PROTOCOL = key === "proxy_protocol" ? '["127.0.0.1"]' : "[]";
  const server = await Server.start({ more: `[admin]\ntoken = "${TOKEN}"\n[tls]
mode = "files"\ncertificate = "${certificates.certificate}"\nkey = "${certificates.key}"\n` });
  let proxy;
  try {
    const port = await freePort();
    const [command, ...rest] = await start({ port, upstream: server.ports[listener] });
    proxy = new Proxy(command, rest, { ...process.env, HOME: directory });
    await proxy.listens(port);

    const member = await signIn(port);
    const seen = await members(port);

    assert.deepEqual(seen.map(({ name, source }) => [name, source]), [["alice", CLIENT]]);
    member.terminate();
  } catch (error) {
    throw new Error(`${error.message}\n${proxy?.said ?? ""}`, { cause: error });
  } finally {
    await proxy?.end();
    await server.stop();
  }
}

class Proxy {
  said = "";
  #child;

  constructor(command, rest, env) {
    this.#child = spawn(command, rest, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.said = (this.said + text).slice(-4000)));
    }
    this.#child.once("error", (error) => (this.said += error.message));
  }

  async listens(port) {
    for (const deadline = Date.now() + START_MS; Date.now() < deadline && this.#runs; await pause(POLL_MS)) {
      const socket = connect(port, "127.0.0.1");
      const taken = await once(socket, "connect").then(() => true, () => false);
      socket.destroy();
      if (taken) return;
    }
    throw new Error("the proxy did not start");
  }

  async end() {
    if (!this.#runs) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const deadline = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
    await ended;
    clearTimeout(deadline);
  }

  get #runs() {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }
}

async function signIn(port) {
  const socket = new WebSocket(`wss://${NAME}:${port}/ws`, {
    origin: `https://${NAME}`,
    // As browsers have it that use port 443.
    headers: { host: NAME },
    ...tls(),
  });
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "login", name: "alice" }));
  const [answer] = await once(socket, "message");
  assert.equal(JSON.parse(answer).success, true);
  return socket;
}

async function members(port) {
  const asked = request(`https://${NAME}:${port}/admin/members`,
    { ...tls(), agent: false, headers: { authorization: `Bearer ${TOKEN}` } });
  asked.end();
  const [response] = await once(asked, "response");
  let text = "";
  for await (const part of response.setEncoding("utf8")) text += part;
  return JSON.parse(text).members;
}

/** The name leads to the proxy, for clients that come from elsewhere. */
function tls() {
  const lookup = (_name, { all }, done) =>
    (all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4));
  return { ca: authority, lookup, localAddress: CLIENT, servername: NAME };
}

function recipe(name) {
  return readFile(new URL(name, RECIPES), "utf8");
}

async function written(name, text) {
  const file = path.join(directory, name);
  await writeFile(file, text);
  return file;
}

async function freePort() {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address();
  taken.close();
  await once(taken, "close");
  return port;
}
