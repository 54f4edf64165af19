// The chat page: sign in, call, accept or decline, text and files both ways, hang up, call again.

import { $, calling } from "./lobby.js";

calling({ began: (call) => call.addEventListener("open", () => $("text").focus()) });
