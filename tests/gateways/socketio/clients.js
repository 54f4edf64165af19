// The clients of three major versions, unmodified, and how tests wait for them.

import { once } from "node:events";
import { io as fourth } from "socket.io-client";
import second from "socket.io-client-2";
import { io as third } from "socket.io-client-3";

export const VERSIONS = { "4.8.4": fourth, "3.1.3": third, "2.5.0": second };

/** Clients of one test, all closed at its end. */
export class Clients {
  #sockets = [];

  constructor(test) {
    test.after(() => {
      for (const socket of this.#sockets) socket.close();
    });
  }

  /** A client of `version` on its way, which keeps all that it is told, and each manager apart. */
  open(version, url, options = {}) {
    const socket = VERSIONS[version](url, { forceNew: true, timeout: 10_000, ...options });
    this.#sockets.push(socket);
    return socket;
  }

  async connect(version, url, options) {
    const socket = this.open(version, url, options);
    const failed = ["connect_error", "error"].map(async (event) => {
      const [why] = await heard(socket, event);
      throw new Error(`${version}: ${why.message ?? why}`);
    });
    await Promise.race([heard(socket, "connect"), ...failed]);
    return socket;
  }
}

/** What comes with the next such event. */
export function heard(socket, event) {
  return new Promise((resolve) => socket.once(event, (...rest) => resolve(rest)));
}

/** Emits something and waits for its acknowledgement. */
export function asked(socket, ...event) {
  return new Promise((resolve) => socket.emit(...event, (...rest) => resolve(rest)));
}

export const transport = (socket) => socket.io.engine.transport.name;

/** Waits until the session goes over a WebSocket. */
export async function upgraded(socket) {
  const { engine } = socket.io;
  if (engine.transport.name !== "websocket") await once(engine, "upgrade");
}
