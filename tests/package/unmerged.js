// What stands in for parts that other branches bring, told from the program itself. Goes when they are merged.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { run } from "../lab/net-system.js";

const DROP_IN = "/etc/systemd/system/throughway.service.d/unmerged.conf";

export async function standIns(machine, binary) {
  const has = async (text) => (await readFile(binary)).includes(text);
  const commands = await run([binary, "--help"]);
  const found = {
    notifies: await has("NOTIFY_SOCKET"),
    takesSockets: await has("LISTEN_FDS"),
    reloads: /^ +reload /m.test(commands) && await has("changed, but holds only after a restart"),
    swapsCertificates: await has("throughway_certificate_expiry_seconds"),
    status: /^ +status /m.test(commands),
    doctor: /^ +doctor /m.test(commands),
  };
  const lines = ["[Service]"];
  if (!found.notifies) {
    lines.push("Type=exec", "WatchdogSec=0");
    lines.push(`ExecStartPost=/bin/sh -c "until ss -Hltn sport = :443 | grep -q .; do sleep 0.05; done"`);
  }
  if (!found.reloads) lines.push("ExecReload=", "ExecReload=/bin/kill -HUP $MAINPID");
  if (lines.length > 1 && !machine.unbootable) {
    await machine.run("mkdir", "-p", path.dirname(DROP_IN));
    await machine.shell(`cat > ${DROP_IN} <<'END'\n${lines.join("\n")}\nEND`);
    await machine.run("systemctl", "daemon-reload");
  }
  return found;
}
