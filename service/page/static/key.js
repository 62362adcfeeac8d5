// The API key: asked for when the service answers 401, kept in this tab's sessionStorage only.

const STORED = "face-anon.key";
const byId = (id) => document.getElementById(id);
const dialog = byId("key-dialog");
const input = byId("key");
const opener = byId("key-open");

let asking = null;

export const key = {
  value: sessionStorage.getItem(STORED),
  needed: false,

  /** Say that the service answers to nobody without a key: it is asked for before an upload, not after. */
  need() {
    key.needed = true;
    opener.hidden = false;
  },

  /** Resolves with a new key; rejects with `problem` where the person gives none. Many may ask at a time. */
  ask(problem) {
    asking ??= open(problem).finally(() => {
      asking = null;
    });
    return asking;
  },
};

function keep(value) {
  key.value = value;
  if (value) sessionStorage.setItem(STORED, value);
  else sessionStorage.removeItem(STORED);
  opener.hidden = !(value || key.needed);
}

function open(problem) {
  const wrong = byId("key-wrong");
  wrong.hidden = !(problem && key.value);
  wrong.textContent = wrong.hidden ? "" : "The service does not know this key.";
  byId("key-forget").hidden = !key.value;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => (dialog.returnValue === "used" ? resolve() : reject(problem)), {
      once: true,
    });
  });
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(input.value.trim());
  dialog.close("used");
});
byId("key-cancel").addEventListener("click", () => dialog.close());
byId("key-forget").addEventListener("click", () => {
  keep(null);
  dialog.close();
});
opener.addEventListener("click", () => key.ask(null).catch(() => {}));
opener.hidden = !key.value;
