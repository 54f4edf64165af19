// Connects to a port again and again until its input ends, one connection at a time, and says what became of them:
// answered, cut off once they had been taken, or not taken at all.
//
//     node prober.js HOST PORT

import { request } from "node:https";

const [host, port] = process.argv.slice(2);
const told = { answered: 0, cutOff: [], refused: [] };
let goesOn = true;

process.stdin.resume().once("end", () => (goesOn = false));
do {
  try {
    await answered();
    told.answered += 1;
    if (told.answered === 1) console.log("begun");
  } catch (error) {
    (error.taken ? told.cutOff : told.refused).push(error.message);
  }
} while (goesOn);
console.log(JSON.stringify(told));

function answered() {
  return new Promise((resolve, reject) => {
    // No agent: a connection of its own.
    const asked = request({ host, port, path: "/healthz", agent: false, rejectUnauthorized: false, timeout: 30_000 });
    asked.once("timeout", () => asked.destroy(new Error("no answer")));
    let taken = false;
    asked.once("socket", (socket) => socket.once("connect", () => (taken = true)));
    asked.once("error", (error) => reject(Object.assign(error, { taken })));
    asked.once("response", (response) => {
      response.resume().once("end", () => {
        if (response.statusCode === 200) resolve();
        else asked.destroy(new Error(`status ${response.statusCode}`));
      });
    });
    asked.end();
  });
}
