// npm's PeerServer in a process of its own: its timers never end. Prints its port.

import { PeerServer } from "peer";

const discovery = process.argv.includes("--discovery");
const oracle = PeerServer({ host: "127.0.0.1", port: 0, allow_discovery: discovery }, (server) => {
  console.log(server.address().port);
});
// Whoever forgets this has it ended by the first text that isn't JSON.
oracle.on("error", () => {});
