// Files: in order, confirmed, refused, given up by either side, and never more than was announced.

import assert from "node:assert/strict";
import { Blob as NodeBlob } from "node:buffer";
import { test } from "node:test";
import { inCall, settled, stream } from "./fakes.js";

globalThis.Blob ??= NodeBlob;

/** A file whose bytes tell their place. */
const fileOf = (size, name = "a.bin") => Object.assign(new Blob([Uint8Array.from({ length: size }, (_, at) => at % 251)]), { name });
const bytes = async (blob) => [...new Uint8Array(await blob.arrayBuffer())];
const codeOf = (promise) => promise.then(() => "done", ({ code }) => code);

async function pair() {
  const { ours, theirs } = await inCall();
  const offered = [];
  theirs.addEventListener("file", (file) => offered.push(file));
  const [here, there] = [ours, theirs].map(({ connection }) => connection.channels.get(1));
  return { ours, theirs, offered, here, there };
}

/** Reading a blob takes as many turns as it wants. */
async function until(condition) {
  for (let turn = 0; turn < 10_000; turn += 1) {
    if (condition()) return;
    await settled();
  }
  assert.fail("it never came to be");
}

test("a file arrives whole and in order, in chunks of 16 KiB, and nothing of it before it is accepted", async () => {
  const { ours, offered, here } = await pair();
  const file = fileOf(40_000);
  const progress = [];
  const sending = ours.sendFile(file, { progress: (sent) => progress.push(sent) });
  await settled();
  assert.deepEqual(here.sent.map((text) => JSON.parse(text)), [{ offer: 1, name: "a.bin", size: 40_000, type: "" }]);

  const got = [];
  const received = await offered[0].accept({ progress: (count) => got.push(count) });
  await sending;

  assert.deepEqual(await bytes(received), await bytes(file));
  assert.deepEqual(here.sent.slice(1).map(({ byteLength }) => byteLength), [16_384, 16_384, 7_232]);
  assert.deepEqual([progress, got.slice(-1)], [[16_384, 32_768, 40_000], [40_000]]);
});

test("files wait for those before them, in each direction by itself", async () => {
  const { ours, theirs, offered } = await pair();
  ours.addEventListener("file", (file) => void file.accept());
  const order = [];
  const sends = [1, 2, 3].map((n) => ours.sendFile(fileOf(n, `${n}`)).then(() => order.push(n)));
  const back = theirs.sendFile(fileOf(9));
  await back;
  assert.deepEqual(offered.map(({ name }) => name), ["1"]);

  for (let n = 0; n < 3; n += 1) {
    await until(() => offered.length > n);
    assert.equal((await offered[n].accept()).size, n + 1);
  }
  await Promise.all(sends);

  assert.deepEqual(order, [1, 2, 3]);
});

test("an empty file is a file", async () => {
  const { ours, offered } = await pair();
  const sending = ours.sendFile(fileOf(0, "empty"));
  await settled();

  const blob = await offered[0].accept();
  await sending;

  assert.equal(blob.size, 0);
});

test("a file that is declined says so, and the next one is offered", async () => {
  const { ours, offered } = await pair();
  const sends = [codeOf(ours.sendFile(fileOf(5))), codeOf(ours.sendFile(fileOf(6)))];
  await settled();

  offered[0].reject();
  await until(() => offered.length === 2);
  await offered[1].accept();

  assert.deepEqual(await Promise.all(sends), ["declined", "done"]);
});

for (const isHalfway of [false, true]) {
  const when = isHalfway ? "halfway" : "before it is accepted";
  test(`the sender gives up ${when}, and the next one goes through`, async () => {
    const { ours, offered, here } = await pair();
    const controller = new AbortController();
    const sending = codeOf(ours.sendFile(fileOf(100_000), { signal: controller.signal }));
    await settled();
    here.onsend = () => isHalfway && controller.abort();

    const receiving = isHalfway ? codeOf(offered[0].accept()) : undefined;
    if (!isHalfway) controller.abort();
    assert.equal(await sending, "canceled");
    await settled();

    assert.equal(await codeOf(offered[0].whole), "canceled");
    assert.equal(await (receiving ?? codeOf(offered[0].accept())), "canceled");
    here.onsend = undefined;
    const next = ours.sendFile(fileOf(3));
    await until(() => offered.length === 2);
    assert.equal((await offered[1].accept()).size, 3);
    await next;
  });
}

test("a listener to progress that fails ends no file", async () => {
  const { ours, offered, there } = await pair();
  const sending = codeOf(ours.sendFile(fileOf(3)));
  await settled();
  const { onmessage } = there;
  const complaints = [];
  // As a browser does with what listeners throw.
  there.onmessage = (event) => {
    try {
      onmessage(event);
    } catch ({ message }) {
      complaints.push(message);
    }
  };
  const failing = (count) => {
    if (count === 3) throw new Error("not the module's");
  };

  offered[0].accept({ progress: failing }).catch(() => {});

  assert.equal((await offered[0].whole).size, 3);
  assert.equal(await sending, "done");
  assert.deepEqual(complaints, ["not the module's"]);
});

test("the receiver gives up halfway, what is still on its way is dropped, and the next one is whole", async () => {
  const { ours, offered, there } = await pair();
  const sending = codeOf(ours.sendFile(fileOf(200_000)));
  await settled();
  const receiving = codeOf(offered[0].accept({ progress: (count) => count > 0 && offered[0].reject() }));

  assert.deepEqual(await Promise.all([receiving, sending]), ["canceled", "declined"]);
  const next = ours.sendFile(fileOf(40_000));
  await until(() => offered.length === 2);
  const blob = await offered[1].accept();
  await next;

  assert.deepEqual(await bytes(blob), await bytes(fileOf(40_000)));
  assert.equal(there.sent.filter((text) => text.includes("reject")).length, 1);
});

test("who sends more than announced is stopped, and nothing beyond it is kept", async () => {
  const { offered, here, there } = await pair();
  here.send(JSON.stringify({ offer: 1, name: "small", size: 10, type: "" }));
  await settled();
  const receiving = codeOf(offered[0].accept());

  here.send(new ArrayBuffer(8));
  here.send(new ArrayBuffer(8));

  assert.equal(await receiving, "failed");
  assert.deepEqual(there.sent.map((text) => JSON.parse(text)), [{ accept: 1 }, { reject: 1 }]);
});

test("a second file at once, and one without a name or a size, are refused", async () => {
  const { offered, here, there } = await pair();
  const junk = [{ name: 7, size: 1 }, { name: "x", size: -1 }, { name: "x", size: 1.5 }, { name: "x", size: "1" }, { name: "x" }];

  for (const [n, fields] of junk.entries()) here.send(JSON.stringify({ offer: n + 1, type: "", ...fields }));
  here.send(JSON.stringify({ offer: 6, name: "first", size: 1, type: "" }));
  here.send(JSON.stringify({ offer: 7, name: "second", size: 1, type: "" }));
  for (const text of ["not json", "null", "[]", '{"done":1}', '{"accept":1}', '{"cancel":9}']) here.send(text);
  here.send(new ArrayBuffer(8));
  await settled();

  assert.deepEqual(offered.map(({ name }) => name), ["first"]);
  assert.deepEqual(there.sent.map((text) => JSON.parse(text).reject), [1, 2, 3, 4, 5, 7]);
});

test("a stranger's name for a file has no path, nothing invisible, and an end", async () => {
  const { ours, offered } = await pair();
  void codeOf(ours.sendFile(fileOf(1, `../\u202e${"x".repeat(300)}\\a\0b`)));

  await settled();

  assert.match(offered[0].name, /^x+_a_b$/);
  assert.equal(offered[0].name.length, 255);
});

test("a call that ends in the middle of a file ends the file on both sides", async () => {
  const { ours, theirs, offered } = await pair();
  const sends = [codeOf(ours.sendFile(fileOf(500_000))), codeOf(ours.sendFile(fileOf(1)))];
  await settled();
  const receiving = codeOf(offered[0].accept({ progress: (count) => count > 0 && theirs.hangUp() }));

  assert.deepEqual(await Promise.all([receiving, ...sends]), ["not-connected", "not-connected", "not-connected"]);
});

test("a file that cannot be read any more is canceled for the other side", async () => {
  const { ours, offered } = await pair();
  const gone = { name: "gone", size: 9, type: "", slice: () => ({ arrayBuffer: async () => { throw new Error("it is gone"); } }) };
  const sending = codeOf(ours.sendFile(gone));
  await settled();

  const receiving = codeOf(offered[0].accept());

  assert.deepEqual(await Promise.all([sending, receiving]), ["failed", "canceled"]);
});

test("sending waits while the channel is behind", async () => {
  const { ours, offered, here } = await pair();
  const sending = ours.sendFile(fileOf(50_000));
  await settled();
  here.bufferedAmount = 300_000;
  const receiving = offered[0].accept();
  await settled();
  const before = here.sent.length;
  await settled();
  assert.deepEqual([before, here.sent.length], [1, 1]);

  here.bufferedAmount = 0;
  here.dispatchEvent(new Event("bufferedamountlow"));
  await sending;

  assert.equal((await receiving).size, 50_000);
});

test("without channels there is nothing to send a file by", async () => {
  const { ours } = await inCall({ chat: false, media: stream("audio") });

  assert.equal(await codeOf(ours.sendFile(fileOf(1))), "not-connected");
});
