// What every page has use for: finding and making elements, reading its own address, copying.

const COPIED_MS = 2_500;

export const $ = (id) => document.getElementById(id);

/** @param {string} tag @param {string} [className] @param {...(string|Node)} content */
export function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

/** What the page's address asks for. */
export const asked = new URLSearchParams(location.search);

/** Takes a secret out of the address, where others may read it; reloading the page finds it again. @param {string} key */
export function hidden(key) {
  const value = asked.get(key) ?? history.state?.[key];
  if (!asked.has(key)) return value;
  const here = new URL(location.href);
  here.searchParams.delete(key);
  history.replaceState({ ...history.state, [key]: value }, "", here);
  return value;
}

/** Whether the page's address leads other machines to themselves. */
export const isLocal = () => /^(localhost|.*\.localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname);

/**
 * Has a button copy what stands in a field or another element.
 * @param {HTMLButtonElement} button @param {HTMLElement} source
 */
export function copying(button, source) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      button.textContent = "Copied";
    } catch {
      // No clipboard on plain http: it is left selected for the keyboard.
      const folded = source.closest("details");
      if (folded) folded.open = true;
      source.focus();
      if (source.select) source.select();
      else getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = label), COPIED_MS);
  });
}
