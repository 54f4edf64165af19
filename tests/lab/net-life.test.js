// How the laboratory comes and goes, its server's life, and that a real browser takes it for the internet.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdtemp, readdir, readlink, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Lab } from "./net.js";
import { missing, run } from "./net-system.js";

const puppeteer = createRequire(new URL("../browser/package.json", import.meta.url))("puppeteer-core");
const skip = await missing();

describe("the laboratory", { skip }, () => {
  test("a browser takes the server's certificate for good, and none that hasn't got the authority does", async () => {
    await inLab(async (lab) => {
      const host = await lab.host("symmetric", "a");

      const trusting = await visit(lab, host, lab.env);
      const other = await visit(lab, host, { ...process.env, HOME: path.join(path.dirname(lab.authority), "nobody") });

      assert.deepEqual(trusting, { status: 200, issuer: "The laboratory's authority", secure: true });
      assert.match(other.error, /ERR_CERT_AUTHORITY_INVALID/);
    });
  });

  test("the server starts with what it is told besides, and is there again after a restart", async () => {
    await inLab(async (lab) => {
      const host = await lab.host("full-cone", "a");
      const answers = (port) => {
        const connect = ["timeout", "2", "bash", "-c", `exec 3<>/dev/tcp/${lab.server.ip4}/${port}`];
        return run(host.wrap(connect)).then(() => true, () => false);
      };
      const first = lab.server.pid;

      await lab.server.restart();
      const second = lab.server.pid;
      await lab.server.stop();
      const away = await answers(lab.server.https);
      await lab.server.start("[turn]\nlisten_tcp = [\"[::]:1234\"]\n");
      const told = await answers(1234);

      assert.notEqual(first, second);
      assert.equal(away, false);
      assert.equal(told, true);
      assert.equal(lab.server.log.match(/^Ready/gm).length, 3);
    });
  });

  test("closed, it leaves no namespace, no file and no process", async () => {
    const before = await left(process.pid);
    const lab = await Lab.open();
    const host = await lab.host("double-nat", "a");
    await lab.pair("hairpin");
    const [command, ...rest] = host.wrap(["sleep", "1000"]);
    const straggler = spawn(command, rest, { stdio: "ignore" });
    await once(straggler, "spawn");
    const [meanwhile, inodes] = [await left(process.pid), await namespaces(process.pid)];

    await lab.close();

    assert.equal(before.length, 0);
    assert.ok(meanwhile.some((what) => what.startsWith("/run/netns/")));
    assert.ok(meanwhile.some((what) => what.startsWith("/etc/netns/")));
    assert.ok(meanwhile.some((what) => what.startsWith(tmpdir())));
    assert.ok(meanwhile.some((what) => what.startsWith("process ")));
    assert.deepEqual(await left(process.pid, inodes), []);
  });

  test("what a killed run has left is removed by the next one", async () => {
    const program = ["--input-type=module", "-e", OPEN];
    const killed = spawn(process.execPath, program, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(killed, "exit");
    const [printed] = await Promise.race([once(killed.stdout, "data"), ended]);
    killed.kill("SIGKILL");
    await ended;
    const [before, inodes] = [await left(killed.pid), await namespaces(killed.pid)];

    await inLab(async () => {});

    assert.equal(String(printed), "open");
    assert.ok(before.some((what) => what.startsWith("/run/netns/")));
    assert.ok(before.some((what) => what.startsWith("process ")));
    assert.deepEqual(await left(killed.pid, inodes), []);
  });

  test("a laboratory that can't be opened leaves nothing either, and says why", async () => {
    const binary = process.env.THROUGHWAY_BIN;
    process.env.THROUGHWAY_BIN = "/bin/false";

    const opened = Lab.open().finally(() => (process.env.THROUGHWAY_BIN = binary));

    await assert.rejects(opened, /the server ended before it was ready/);
    assert.deepEqual(await left(process.pid), []);
  });
});

test("whoever isn't root is told that it takes root", async (t) => {
  // Somebody else may not be let in where this file lies.
  const directory = await mkdtemp(path.join(tmpdir(), "throughway-lab-"));
  t.after(() => rm(directory, { recursive: true }));
  const here = path.dirname(fileURLToPath(import.meta.url));
  const files = (await readdir(here)).filter((name) => name.startsWith("net"));
  await Promise.all(files.map((name) => cp(path.join(here, name), path.join(directory, name))));
  await writeFile(path.join(directory, "package.json"), '{ "type": "module" }');
  await chmod(directory, 0o755);
  const program = `import { Lab } from ${JSON.stringify(path.join(directory, "net.js"))}; await Lab.open();`;
  const nobody = process.getuid() === 0 ? { uid: 65_534, gid: 65_534 } : {};

  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { cwd: "/", ...nobody });
  let errors = "";
  child.stderr.on("data", (text) => (errors += text));
  const [status] = await once(child, "close");

  assert.equal(status, 1);
  assert.match(errors, /Error: the laboratory makes network namespaces, and that needs root/);
});

const OPEN = `
  import { Lab } from ${JSON.stringify(fileURLToPath(new URL("net.js", import.meta.url)))};
  const lab = await Lab.open();
  await lab.host("symmetric", "a");
  process.stdout.write("open");
  setInterval(() => {}, 1_000_000);
`;

async function inLab(work) {
  const lab = await Lab.open();
  try {
    await work(lab);
  } finally {
    await lab.close();
  }
}

/** Loads the chat page in a real browser on a host, told nothing about certificates. */
async function visit(lab, host, env) {
  const executablePath = path.join(path.dirname(lab.authority), "chromium");
  const command = host.wrap([process.env.CHROMIUM ?? "chromium"]).join(" ");
  await writeFile(executablePath, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  const args = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"];
  // The pipe's files stay open from one process to the next.
  const browser = await puppeteer.launch({ executablePath, pipe: true, env, args });
  try {
    const page = await browser.newPage();
    const response = await page.goto(`${lab.server.origin}/chat`);
    const secure = await page.evaluate(() => isSecureContext);
    return { status: response.status(), issuer: response.securityDetails().issuer(), secure };
  } catch (error) {
    return { error: error.message };
  } finally {
    await browser.close();
  }
}

/** What there is of a process's laboratories: namespaces, files, and processes in these namespaces or in `others`. */
async function left(pid, others = []) {
  const name = new RegExp(`^twlab-${pid}-`);
  const found = [];
  for (const directory of ["/run/netns", "/etc/netns", tmpdir()]) {
    const names = await readdir(directory).catch(() => []);
    found.push(...names.filter((found) => name.test(found)).map((found) => path.join(directory, found)));
  }
  const theirs = [...others, ...(await namespaces(pid))];
  for (const process of (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))) {
    const inside = await readlink(`/proc/${process}/ns/net`).catch(() => "");
    if (theirs.includes(inside)) found.push(`process ${process}`);
  }
  return found;
}

/** The namespaces of a process's laboratories as /proc names them: one without a name lives on with what runs in it. */
async function namespaces(pid) {
  const names = (await readdir("/run/netns").catch(() => [])).filter((name) => name.startsWith(`twlab-${pid}-`));
  return Promise.all(names.map(async (name) => `net:[${(await stat(path.join("/run/netns", name))).ino}]`));
}
