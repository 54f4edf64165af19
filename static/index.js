// Fills in this server's own addresses, and copies snippets.

const socket = new URL("/ws", location.href);
socket.protocol = socket.protocol.replace("http", "ws");
const urls = { module: new URL("/throughway.js", location.href).href, socket: socket.href };

for (const place of document.querySelectorAll("[data-url]")) place.textContent = urls[place.dataset.url];

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // No clipboard on plain http: leave it selected for the keyboard.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2500);
  });
}
