// Fills in this server's own addresses, shows which clients it serves, and copies snippets.

import { copying } from "./page.js";

const here = (path) => new URL(path, location.href).href;
const socket = (path) => here(path).replace(/^http/, "ws");
const isSecure = location.protocol === "https:";

const urls = {
  origin: location.origin,
  module: here("/throughway.js"),
  ice: here("/ice"),
  socket: socket("/ws"),
  socketio: here("/socket.io/socket.io.js"),
  pubsub: socket("/pubsub"),
  signaling: socket("/signaling"),
  host: location.hostname,
  port: location.port || (isSecure ? "443" : "80"),
  secure: String(isSecure),
};

for (const place of document.querySelectorAll("[data-url]")) place.textContent = urls[place.dataset.url];

for (const button of document.querySelectorAll("[data-copy]")) {
  copying(button, document.getElementById(button.dataset.copy));
}

const served = await (await fetch("/gateways")).json();
for (const one of document.querySelectorAll("[data-gateway]")) one.hidden = !served.includes(one.dataset.gateway);
document.getElementById("others").hidden = served.length === 0;
