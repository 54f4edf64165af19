// A certificate authority of a run's own, the server's certificate by it, and a home whose browsers trust it.

import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { run } from "./net-system.js";

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
const DAYS = "7";

export class Certificates {
  /** The authority's certificate, PEM; the server's chain and key. */
  authority;
  certificate;
  key;
  /** For $HOME: Chromium reads the authority in it. */
  home;

  static async make(directory, name, addresses) {
    const made = new Certificates();
    const file = (name) => path.join(directory, name);
    made.authority = file("authority.pem");
    made.certificate = file("certificate.pem");
    made.key = file("key.pem");
    made.home = file("home");
    await run(["openssl", "req", "-x509", ...NEW_KEY, "-keyout", file("authority.key"), "-out", made.authority,
      "-days", DAYS, "-subj", "/CN=The laboratory's authority", "-addext", "basicConstraints=critical,CA:TRUE",
      "-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
    const database = path.join(made.home, ".pki/nssdb");
    await mkdir(database, { recursive: true });
    await Promise.all([made.#sign(file, name, addresses), trust(made.authority, database)]);
    return made;
  }

  async #sign(file, name, addresses) {
    const names = [`DNS:${name}`, ...addresses.map((address) => `IP:${address}`)].join(",");
    const extensions = [`subjectAltName=${names}`, "basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth"];
    await writeFile(file("extensions"), `${extensions.join("\n")}\n`);
    await run(["openssl", "req", ...NEW_KEY, "-keyout", this.key, "-out", file("request.pem"), "-subj", `/CN=${name}`]);
    await run(["openssl", "x509", "-req", "-in", file("request.pem"), "-CA", this.authority,
      "-CAkey", file("authority.key"), "-CAcreateserial", "-days", DAYS, "-extfile", file("extensions"),
      "-out", this.certificate]);
  }
}

/** Makes NSS trust the authority where it keeps its database: in `.pki/nssdb` of a home, or in a profile of Firefox. */
export async function trust(authority, directory) {
  const database = `sql:${directory}`;
  await run(["certutil", "-N", "-d", database, "--empty-password"]);
  await run(["certutil", "-A", "-d", database, "-n", "laboratory", "-t", "C,,", "-i", authority]);
}
