// The chat page: sign in, call, accept or decline, text and files both ways, hang up, call again.

import { calling } from "./lobby.js";
import { $ } from "./page.js";

const WORDS_ONLY = "with voice or video. This page takes words and files; to hear and see each other, both open Call.";

calling({
  ringing: (event) => ($("incoming-kind").textContent = event?.media ? WORDS_ONLY : ""),
  began: (call) => call.addEventListener("open", () => $("text").focus()),
});
