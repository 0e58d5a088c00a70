// The keyboard is the terminal's from the start, and what the console copies (OSC 52) goes to the browser's clipboard.
"use strict";

const COPIED = /\x1b\]52;c;([A-Za-z0-9+/=]*)(?:\x07|\x1b\\)/g;

function focusTerminal() {
  document.querySelector(".xterm-helper-textarea")?.focus();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not over http from another machine: the old way
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
    focusTerminal();
  }
}

window.WebSocket = class extends window.WebSocket {
  #rest = ""; // a code that the next message goes on with

  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => typeof data === "string" || this.#look(new Uint8Array(data)));
  }

  #look(bytes) {
    const text = this.#rest + Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
    let end = 0;
    for (const found of text.matchAll(COPIED)) {
      end = found.index + found[0].length;
      copy(new TextDecoder().decode(Uint8Array.from(atob(found[1]), (c) => c.charCodeAt(0))));
    }
    const begun = text.indexOf("\x1b]52;", end);
    this.#rest = begun >= 0 && text.length - begun < 100_000 ? text.slice(begun) : "";
  }
};

window.addEventListener("load", () => {
  const shown = () => document.body.classList.contains("-first-byte") && focusTerminal();
  new MutationObserver(shown).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  document.addEventListener("click", () => window.getSelection().isCollapsed && focusTerminal());
});
